"""Promise: search works in pages that are opened as files, where browsers start no worker."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from docs.pages import DOCS

WORKER = "self.onmessage = (e) => { e.data.list.push(3); self.postMessage({ back: e.data, name: 'worker' }); };"
PAGE = """<!doctype html><body>{script}<script>
window.told = "nothing";
const sent = {{ list: [1, 2] }};
try {{
  const worker = new Worker("its.js");
  worker.onerror = () => (window.told = "refused");
  worker.onmessage = (e) => {{ window.told = JSON.stringify([e.data, sent]); worker.terminate(); }};
  worker.postMessage(sent);
}} catch (error) {{ window.told = "refused"; }}
</script>"""


@pytest.mark.parametrize(
    ("script", "told"),
    [
        # What was sent is copied, as to a worker: the page's own list stays as it was.
        ('<script src="worker.js"></script>', '[{"back":{"list":[1,2,3]},"name":"worker"},{"list":[1,2]}]'),
        ("", "refused"),
    ],
    ids=["with worker.js", "without"],
)
def test_a_page_opened_as_a_file_has_workers(browser: Any, tmp_path: Path, script: str, told: str) -> None:
    shutil.copy(DOCS / "worker.js", tmp_path)
    (tmp_path / "its.js").write_text(WORKER)
    (tmp_path / "page.html").write_text(PAGE.format(script=script))
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_function("window.told !== 'nothing'", timeout=20_000)
    assert page.evaluate("window.told") == told
    assert page.evaluate("document.querySelectorAll('iframe').length") == 0
    page.close()
