"""`grocer promote`, `grocer rollback` and `grocer status`: end a canary, and show the state."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from grocer.config.deployment import DeployConfig
from grocer.config.recipes import recipe
from pipelines.cli.options import Settings


def promote(
    auto: Annotated[
        bool,
        Option(
            "--auto",
            help="Compare the canary with the stable revision first, then promote it or roll it "
            "back",
        ),
    ] = False,
    settings: Settings = None,
) -> None:
    """Shift all traffic to the canary and remove the stable revision.

    The stable revision is removed once the canary handles all traffic. The InferenceService is
    deploy.name in deploy.namespace.

    With --auto, both are compared at the canary's share of the traffic and at each larger one of
    the deploy. This also resumes an analysis that was interrupted. It reads the metrics of pods at
    their addresses. Exit code 3: the canary was rolled back.
    """
    config = _deploy(settings)
    if not auto:
        from serving.rollout import canary

        typer.echo(canary.promote(config))
        return
    from serving.rollout.predictor_metrics import require_metrics
    from serving.rollout.progressive import analyse

    require_metrics(config)
    decision = analyse(config)[-1]
    typer.echo(decision.text)
    raise typer.Exit(0 if decision.promoted else 3)


def rollback(settings: Settings = None) -> None:
    """Shift all traffic to the stable revision and remove the canary.

    The InferenceService is deploy.name in deploy.namespace.
    """
    from serving.rollout import canary

    typer.echo(canary.rollback(_deploy(settings)))


def status(
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of a table")] = False,
    settings: Settings = None,
) -> None:
    """Show the bundles that are served and decisions about canaries.

    The table has digests, traffic, readiness and addresses. The InferenceService is
    deploy.name in deploy.namespace. Decisions are events of it, which Kubernetes keeps for an hour
    by default.
    """
    from serving.rollout import status as serving_status

    found = serving_status.status(_deploy(settings))
    typer.echo(found.model_dump_json(indent=2) if as_json else serving_status.table(found))


def _deploy(settings: list[str] | None) -> DeployConfig:
    # All recipes have the same deployment defaults.
    return recipe("tiny").with_settings(settings or []).deploy
