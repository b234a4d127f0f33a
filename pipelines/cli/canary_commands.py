"""`grocer promote` and `grocer rollback`: end a canary deployment."""

from __future__ import annotations

import typer

from grocer.config.deployment import DeployConfig
from grocer.config.recipes import recipe
from pipelines.cli.options import Settings


def promote(settings: Settings = None) -> None:
    """Shift all traffic to the canary and remove the stable revision.

    The stable revision is removed once the canary handles all traffic. The InferenceService is
    deploy.name in deploy.namespace.
    """
    from serving.rollout import canary

    typer.echo(canary.promote(_deploy(settings)))


def rollback(settings: Settings = None) -> None:
    """Shift all traffic to the stable revision and remove the canary.

    The InferenceService is deploy.name in deploy.namespace.
    """
    from serving.rollout import canary

    typer.echo(canary.rollback(_deploy(settings)))


def _deploy(settings: list[str] | None) -> DeployConfig:
    # All recipes have the same deployment defaults.
    return recipe("tiny").with_settings(settings or []).deploy
