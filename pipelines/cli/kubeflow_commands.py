"""`grocer compile`, `grocer submit` and `grocer schedule`: run the pipeline on Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from pipelines.cli.options import (
    Account,
    Cron,
    Follow,
    Host,
    ImagesFile,
    KubeflowNamespace,
    KubernetesFormat,
    Namespace,
    Recipe,
    Replace,
    Settings,
    Token,
    images_of,
)

if TYPE_CHECKING:
    from grocer.events import Event
    from pipelines.kubeflow.client import Server
    from pipelines.kubeflow.compiled import Package
    from pipelines.kubeflow.submit import Job

Data = Annotated[
    str, Option(metavar="URI", help="Catalogue at s3://, gs:// or https://; CSV or Parquet")
]
Champion = Annotated[
    str | None,
    Option(metavar="URI", help="Bundle that the new model must beat; default: the deployed one"),
]
Canary = Annotated[
    int | None,
    Option(
        min=1,
        max=99,
        metavar="PERCENT",
        help="Deploy as a canary with this share of the traffic, until grocer promote or rollback",
    ),
]
NoDeploy = Annotated[bool, Option("--no-deploy", help="Train and evaluate, but do not deploy")]


def compile_pipeline(
    out: Annotated[Path, Argument(metavar="OUT.yaml", help="Output file")],
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    kubernetes: KubernetesFormat = False,
    namespace: KubeflowNamespace = "kubeflow",
) -> None:
    """Compile the pipeline to YAML for Kubeflow Pipelines."""
    from pipelines.kubeflow.training import package

    compiled = package(recipe(from_recipe).with_settings(settings or []), images_of(images))
    write(compiled, out, namespace if kubernetes else None)


def submit(
    data: Data,
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    champion: Champion = None,
    canary: Canary = None,
    no_deploy: NoDeploy = False,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = "grocer-pipeline",
    follow: Follow = True,
) -> None:
    """Run the pipeline on Kubeflow and follow it.

    The exit codes are those of grocer run. Ctrl-C stops following; the run continues.
    """
    from pipelines.cli.print_summary import show_verdict
    from pipelines.kubeflow.client import Server
    from pipelines.kubeflow.submit import training_job

    config = _config(from_recipe, settings, canary)
    job = training_job(
        data,
        config,
        images_of(images),
        champion=champion,
        deploy=not no_deploy,
        service_account=service_account,
    )
    verdict = start(Server(host=host, namespace=namespace, token_env=token_env), job, follow)
    if verdict is None:
        return
    outcome = "deployed"
    if not verdict.passed:
        outcome = "nothing deployed"
    elif no_deploy:
        outcome = "not deployed (--no-deploy)"
    elif config.deploy.canary:
        outcome = f"canary deployed with {config.deploy.canary} % of the requests"
    show_verdict(verdict.passed, verdict.reasons, outcome)
    if not verdict.reasons:
        typer.echo("Kubeflow did not keep the gate's log; see the step's artifacts for the reasons")
    raise typer.Exit(0 if verdict.passed else 3)


def schedule(
    data: Data,
    cron: Cron,
    name: Annotated[str, Option(metavar="NAME", help="Name of the schedule")] = "grocer",
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    champion: Champion = None,
    canary: Canary = None,
    no_deploy: NoDeploy = False,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = "grocer-pipeline",
    replace: Replace = False,
) -> None:
    """Run the pipeline on Kubeflow on a schedule.

    Runs do not overlap, and missed runs are skipped.
    """
    from pipelines.kubeflow.client import Server
    from pipelines.kubeflow.submit import schedule as schedule_job
    from pipelines.kubeflow.submit import training_job

    job = training_job(
        data,
        _config(from_recipe, settings, canary),
        images_of(images),
        champion=champion,
        deploy=not no_deploy,
        service_account=service_account,
    )
    server = Server(host=host, namespace=namespace, token_env=token_env)
    typer.echo(f"{name}: {schedule_job(server, job, name, cron, replace=replace)}")


def write(package: Package, out: Path, namespace: str | None) -> None:
    """Write a compiled pipeline as YAML, or as Kubernetes objects in `namespace`."""
    from grocer.io.atomic import output_file

    with output_file(out) as part:
        part.write_text(package.objects(namespace) if namespace else package.text)


def start(server: Server, job: Job, follow: bool) -> Event | None:
    """Start a job and follow it; return the gate's verdict, or None without `follow`."""
    from pipelines.kubeflow.follow import follow as follow_run
    from pipelines.kubeflow.submit import submit as submit_job
    from pipelines.local.progress import Progress
    from pipelines.local.run import RunError

    submitted = submit_job(server, job)
    typer.echo(submitted.page)
    if not follow:
        return None
    try:
        with Progress() as progress:
            return follow_run(server, submitted, progress)
    except RunError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("grocer: stopped following; the run continues", err=True)
        raise typer.Exit(130) from error


def _config(name: str, settings: list[str] | None, canary: int | None) -> RunConfig:
    share = [] if canary is None else [f"deploy.canary={canary}"]
    return recipe(name).with_settings([*(settings or []), *share])
