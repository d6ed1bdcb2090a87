"""The one page of the viewer. What it shows it asks for; the whole view stands in its address, after the #."""

from __future__ import annotations

from importlib.resources import files

from .._page import whole

__all__ = ["PAGE", "framed"]

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sightline</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="icon.svg">
<link rel="stylesheet" href="viewer.css">
<script type="module" src="viewer.js"></script>
</head>
<body>
<div id="app"></div>
<noscript>The viewer needs JavaScript: its maps are drawn in the browser.</noscript>
</body>
</html>
"""


def framed() -> str:
    """The same page as one text, for a frame: it asks whoever shows it, over a port that it is handed, and no server.

    The owner of the frame posts it one message when it has loaded: the view to begin with, and a MessagePort.
    """
    static = files("sightline.viewer") / "static"
    script, style = ((static / name).read_text("utf-8") for name in ("viewer.js", "viewer.css"))
    body = '<div id="app" data-framed></div>\n<noscript>The map is drawn by a script. Please allow scripts.</noscript>'
    return whole("Sightline", script, style, body)
