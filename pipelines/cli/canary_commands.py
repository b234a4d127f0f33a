"""`grocer promote` and `grocer rollback`: a person decides what becomes of a canary."""

from __future__ import annotations

from typing import Annotated

import typer

from grocer.config.deployment import DeployConfig
from grocer.config.recipes import recipe
from pipelines.cli.options import settings_like

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Say where the canary is, as in deploy.namespace=shop; may be given again",
        autocompletion=settings_like,
    ),
]


def promote(settings: Settings = None) -> None:
    """Let the canary serve alone.

    It is given all requests first, and what served beside it goes once it bears them.
    """
    from serving.rollout import canary

    typer.echo(canary.promote(_deploy(settings)))


def rollback(settings: Settings = None) -> None:
    """Take the canary away: what served beside it serves alone."""
    from serving.rollout import canary

    typer.echo(canary.rollback(_deploy(settings)))


def _deploy(settings: list[str] | None) -> DeployConfig:
    # Every recipe deploys to the same place, unless a setting says another.
    return recipe("tiny").with_settings(settings or []).deploy
