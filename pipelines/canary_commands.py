"""`grocer promote` and `grocer rollback`: a person decides what becomes of a canary."""

from __future__ import annotations

from typing import Annotated

import typer

from grocer.recipes import recipe
from grocer.settings import DeployConfig

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Where it is, as in deploy.namespace=shop"),
]


def promote(settings: Settings = None) -> None:
    """Let the canary serve alone, once it bears all requests."""
    from serving import canary

    typer.echo(canary.promote(_deploy(settings)))


def rollback(settings: Settings = None) -> None:
    """Take the canary away; what served beside it serves alone."""
    from serving import canary

    typer.echo(canary.rollback(_deploy(settings)))


def _deploy(settings: list[str] | None) -> DeployConfig:
    # Every recipe deploys to the same place, unless a setting says another.
    return recipe("tiny").with_settings(settings or []).deploy
