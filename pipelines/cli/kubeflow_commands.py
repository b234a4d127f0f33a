"""`grocer compile`, `grocer submit` and `grocer schedule`: run the pipeline on Kubeflow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from components.images import Images
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.io.atomic import output_file
from pipelines.cli.options import (
    Account,
    Corrections,
    Cron,
    Follow,
    PipelineOptions,
    Replace,
    ScheduleName,
    ServerOptions,
    TriggerOptions,
    corrected_settings,
    expand_groups,
    namespace_name,
)
from pipelines.kubeflow.client import ACCOUNT, Server

if TYPE_CHECKING:
    from grocer.events import Event
    from grocer.retraining.conditions import Trigger
    from pipelines.kubeflow.compiled import Package
    from pipelines.kubeflow.submit import Job

Data = Annotated[
    str, Option(metavar="URI", help="Catalogue at s3://, gs:// or https://; CSV or Parquet")
]
OutFile = Annotated[Path, Argument(metavar="OUT.yaml", help="Output file")]


@dataclass(frozen=True)
class CompileOptions(PipelineOptions):
    """Options of `compile` and `bulk compile`."""

    kubernetes: Annotated[
        bool,
        Option(
            "--kubernetes", help="Write Pipeline and PipelineVersion objects, for kubectl or GitOps"
        ),
    ] = False
    namespace: Annotated[
        str,
        Option(
            metavar="NAME", help="Namespace of the --kubernetes objects", callback=namespace_name
        ),
    ] = "kubeflow"

    def write(self, package: Callable[[RunConfig, Images], Package], out: Path) -> None:
        """Write a compiled pipeline as YAML, or as Kubernetes objects in `namespace`."""
        compiled = package(self.config, self.images)
        with output_file(out) as part:
            part.write_text(compiled.objects(self.namespace) if self.kubernetes else compiled.text)


@dataclass(frozen=True)
class TrainingOptions(PipelineOptions):
    """Options of `submit` and `schedule`."""

    champion: Annotated[
        str | None,
        Option(
            metavar="URI", help="Bundle that the new model must beat; default: the deployed one"
        ),
    ] = None
    canary: Annotated[
        str | None,
        Option(
            metavar="PERCENT",
            help="Deploy as a canary with this share of the traffic, until grocer promote or "
            "rollback; with --analysis also several shares, for example 5,25,50",
        ),
    ] = None
    analysis: Annotated[
        bool,
        Option(
            "--analysis",
            help="Compare the canary with the deployed bundle at each share of the traffic, then "
            "promote it or roll it back",
        ),
    ] = False
    no_deploy: Annotated[
        bool, Option("--no-deploy", help="Train and evaluate, but do not deploy")
    ] = False
    corrections: Corrections = None
    service_account: Account = ACCOUNT

    @property
    def config(self) -> RunConfig:
        settings = corrected_settings(self.settings, self.corrections)
        settings += [] if self.canary is None else [f'deploy.canary="{self.canary}"']
        settings += ["deploy.analysis=true"] if self.analysis else []
        return recipe(self.from_recipe).with_settings(settings)

    def job(self, data: str, trigger: Trigger | None = None, state: str | None = None) -> Job:
        from pipelines.kubeflow.submit import training_job

        return training_job(
            data,
            self.config,
            self.images,
            champion=self.champion,
            deploy=not self.no_deploy,
            trigger=trigger,
            state=state,
            service_account=self.service_account,
        )


@expand_groups
def compile_pipeline(out: OutFile, *, options: CompileOptions) -> None:
    """Compile the pipeline to YAML for Kubeflow Pipelines."""
    from pipelines.kubeflow.training import package

    options.write(package, out)


@expand_groups
def submit(
    *, data: Data, options: TrainingOptions, server: ServerOptions, follow: Follow = True
) -> None:
    """Run the pipeline on Kubeflow and follow it.

    The exit codes are those of grocer run. Ctrl-C stops following; the run continues.
    """
    from pipelines.cli.print_summary import show_verdict

    verdict = start(server, options.job(data), follow)
    if verdict is None:
        return
    outcome = "deployed"
    heading = "Canary" if verdict.step == "deploy" else "Gate"
    if verdict.step == "deploy":
        outcome = "deployed" if verdict.passed else "rolled back"
    elif not verdict.passed:
        outcome = "nothing deployed"
    elif options.no_deploy:
        outcome = "not deployed (--no-deploy)"
    elif options.config.deploy.analysis:
        typer.echo("grocer: Kubeflow did not keep the log of deploy; see grocer status", err=True)
        raise typer.Exit(1)
    elif canary := options.config.deploy.canary:
        outcome = f"canary deployed with {canary[0]} % of the traffic"
    show_verdict(verdict.passed, verdict.reasons, outcome, heading=heading)
    if not verdict.reasons:
        typer.echo("Kubeflow did not keep the gate's log; see the step's artifacts for the reasons")
    raise typer.Exit(0 if verdict.passed else 3)


@expand_groups
def schedule(
    *,
    data: Data,
    cron: Cron,
    name: ScheduleName = "grocer",
    options: TrainingOptions,
    trigger: TriggerOptions,
    state: Annotated[
        str | None,
        Option(
            metavar="URI",
            help="With --when, directory at s3:// or gs:// with the result of the latest run; "
            "default: last-run/ in deploy.store",
        ),
    ] = None,
    server: ServerOptions,
    replace: Replace = False,
) -> None:
    """Run the pipeline on Kubeflow on a schedule.

    Runs do not overlap, and missed runs are skipped. With --when, the first step of a run decides
    whether a retraining is due; if not, all others are skipped.
    """
    from pipelines.kubeflow.submit import schedule as schedule_job

    job = options.job(data, trigger.trigger(options.config), state)
    typer.echo(f"{name}: {schedule_job(server, job, name, cron, replace=replace)}")


def start(server: Server, job: Job, follow: bool) -> Event | None:
    """Start a job and follow it; return the gate's verdict, or None without `follow`."""
    from pipelines.kubeflow.follow import follow as follow_run
    from pipelines.kubeflow.submit import submit as submit_job
    from pipelines.local.progress import Progress

    submitted = submit_job(server, job)
    typer.echo(submitted.page)
    if not follow:
        return None
    try:
        with Progress() as progress:
            return follow_run(server, submitted, progress)
    except KeyboardInterrupt as error:
        typer.echo("grocer: stopped following; the run continues", err=True)
        raise typer.Exit(130) from error
