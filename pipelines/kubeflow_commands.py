"""`grocer compile`, `grocer submit` and `grocer schedule`: the pipeline on Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grocer.recipes import recipe
from pipelines.options import Recipe, Settings


def compile_pipeline(
    out: Annotated[Path, typer.Argument(metavar="OUT.yaml", help="Where the pipeline is written")],
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
) -> None:
    """Compile the pipeline to YAML for Kubeflow Pipelines."""
    from grocer.files import whole_file
    from pipelines.dag import compiled

    text = compiled(recipe(from_recipe).with_settings(settings or []))
    with whole_file(out) as part:
        part.write_text(text)


Data = Annotated[str, typer.Option(metavar="URI", help="s3://, gs:// or https://")]
Host = Annotated[
    str | None, typer.Option(metavar="URL", help="Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT")
]
Namespace = Annotated[
    str | None, typer.Option(metavar="NAME", help="Yours, where Kubeflow is shared by several")
]
Token = Annotated[
    str, typer.Option(metavar="NAME", help="Environment variable of a bearer token, if needed")
]
Account = Annotated[
    str | None, typer.Option(metavar="NAME", help="Kubernetes service account of the steps")
]


def submit(
    data: Data,
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = None,
    follow: Annotated[bool, typer.Option(help="Show its steps until it ends")] = True,
) -> None:
    """Start the pipeline on Kubeflow and follow it; exit codes are those of `run`."""
    from pipelines.progress import Progress
    from pipelines.run import RunError
    from pipelines.submit import Job, Server
    from pipelines.submit import follow as follow_run
    from pipelines.submit import submit as submit_job

    config = recipe(from_recipe).with_settings(settings or [])
    job = Job(data=data, config=config, service_account=service_account)
    server = Server(host=host, namespace=namespace, token_env=token_env)
    submitted = submit_job(server, job)
    typer.echo(submitted.page)
    if not follow:
        return
    try:
        with Progress() as progress:
            deployed = follow_run(server, submitted, progress)
    except RunError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        typer.echo("grocer: no longer followed; the run goes on", err=True)
        raise typer.Exit(130) from error
    typer.echo("yes: deployed" if deployed else "no: nothing is served; see the step gate")
    raise typer.Exit(0 if deployed else 3)


def schedule(
    data: Data,
    cron: Annotated[str, typer.Option(metavar="EXPRESSION", help="As in crontab: '0 3 * * 1'")],
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the schedule")] = "grocer",
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of the schedule of that name")
    ] = False,
) -> None:
    """Have Kubeflow run the pipeline at fixed times, one run at a time."""
    from pipelines.submit import Job, Server
    from pipelines.submit import schedule as schedule_job

    config = recipe(from_recipe).with_settings(settings or [])
    job = Job(data=data, config=config, service_account=service_account)
    server = Server(host=host, namespace=namespace, token_env=token_env)
    typer.echo(f"{name}: {schedule_job(server, job, name, cron, replace=replace)}")
