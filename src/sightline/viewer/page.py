"""The one page of the viewer. What it shows it asks for; the whole view stands in its address, after the #."""

from __future__ import annotations

__all__ = ["PAGE"]

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
