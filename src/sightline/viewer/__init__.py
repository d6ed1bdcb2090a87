"""A local viewer of traces: a map of any head at any zoom, exact to the single weight, in the browser.

`sightline.viewer.server.application` is the same as an ASGI application, which needs the packages of the extra `view`.
"""

from .serving import check, serve

__all__ = ["check", "serve"]
