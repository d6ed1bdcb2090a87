"""The last step of `make docs`: the pages need no network, also when they are opened as files; or the build fails.

    python docs/finish.py build/docs

The theme takes one script from another site, which lets search work without a server. docs/worker.js does the same.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

SHIM = "https://unpkg.com/iframe-worker/shim"
_LOADED = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\ssrc=\"?(https?:[^\"\s>]+)|<link\b[^>]*>", re.IGNORECASE)
_FETCHED = re.compile(r"rel=\"?(?:stylesheet|icon|preconnect|preload|modulepreload|manifest)\b", re.IGNORECASE)
_ADDRESS = re.compile(r"href=\"?(https?:[^\"\s>]+)", re.IGNORECASE)


def from_elsewhere(page: str) -> list[str]:
    """The addresses of other sites that a browser fetches when it opens this page; links that one may click are none.

    >>> from_elsewhere('<script src="https://a.example/x.js"></script><a href="https://b.example">b</a>')
    ['https://a.example/x.js']
    """
    found = []
    for tag in _LOADED.finditer(page):
        if tag[1]:
            found.append(tag[1])
        elif _FETCHED.search(tag[0]) and (address := _ADDRESS.search(tag[0])):
            found.append(address[1])
    return found


def finish(site: Path) -> list[str]:
    """Put our own script in the place of the theme's; what is still fetched from elsewhere, page by page."""
    left = []
    for path in sorted(site.rglob("*.html")):
        here = os.path.relpath(site / "worker.js", path.parent)
        page = path.read_text().replace(SHIM, here)
        path.write_text(page)
        left += [f"{path.relative_to(site)}: {address}" for address in from_elsewhere(page)]
    return left


def main() -> None:
    left = finish(Path(sys.argv[1]))
    if left:
        sys.exit("These pages would fetch from other sites:\n" + "\n".join(left))


if __name__ == "__main__":
    main()
