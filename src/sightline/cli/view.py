"""`sightline view TRACE…`"""

from __future__ import annotations

import webbrowser

import click

__all__ = ["command"]


@click.command("view")
@click.argument("traces", nargs=-1, required=True, metavar="TRACE...")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to answer on.  [default: a free one]")
@click.option("--no-browser", is_flag=True, help="Print the address, and open nothing.")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(traces: tuple[str, ...], port: int, no_browser: bool, debug: bool) -> None:
    """Show TRACE, one or several, in the browser: any head's map at any zoom, down to single weights.

    Record with --view, and all of it is there. The address works on this machine alone and holds a random part, so
    that nobody else's page can read it. Interrupt with Ctrl-C.
    """
    from ..viewer import serve

    def ready(address: str) -> None:
        click.echo(f"Open {address}\nStop with Ctrl-C.")
        if not no_browser:
            webbrowser.open(address)

    serve(traces, ready, port=port)
