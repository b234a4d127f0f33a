"""`grocer bulk compile`, `submit` and `schedule`: classify whole files on Kubeflow, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from grocer.config.recipes import recipe
from pipelines.cli.kubeflow_commands import start, write
from pipelines.cli.options import (
    Account,
    Cron,
    Follow,
    Host,
    ImagesFile,
    KubeflowNamespace,
    KubernetesFormat,
    MinProbability,
    Namespace,
    Recipe,
    Replace,
    Settings,
    Token,
    images_of,
)

bulk = typer.Typer(
    name="bulk", help="Classify whole files on Kubeflow, in shards.", rich_markup_mode=None
)

Data = Annotated[
    str, Option(metavar="URI", help="Input file, at s3://, gs:// or https://; CSV or Parquet")
]
Out = Annotated[
    str,
    Option(
        metavar="URI",
        help="Output file, at s3:// or gs://; CSV or Parquet; {date} and {time} are the run's",
    ),
]
Bundle = Annotated[
    str | None, Option(metavar="URI", help="Bundle to use; default: the deployed one")
]
Shards = Annotated[
    int,
    Option(metavar="N", min=1, max=1000, help="Maximum number of shards, each with its own pod"),
]
Column = Annotated[str, Option(metavar="NAME", help="Column with the product names")]


@bulk.command(name="compile")
def compile_pipeline(
    out: Annotated[Path, Argument(metavar="OUT.yaml", help="Output file")],
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    kubernetes: KubernetesFormat = False,
    namespace: KubeflowNamespace = "kubeflow",
) -> None:
    """Compile the bulk pipeline to YAML for Kubeflow Pipelines."""
    from pipelines.kubeflow.bulk import package

    compiled = package(recipe(from_recipe).with_settings(settings or []), images_of(images))
    write(compiled, out, namespace if kubernetes else None)


@bulk.command()
def submit(
    data: Data,
    out: Out,
    bundle: Bundle = None,
    shards: Shards = 8,
    column: Column = "product_name",
    min_probability: MinProbability = 0.0,
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = "grocer-pipeline",
    follow: Follow = True,
) -> None:
    """Classify a file on Kubeflow and follow the run.

    Every row is kept, in the same order. Ctrl-C stops following; the run continues.
    """
    from pipelines.kubeflow.client import Server
    from pipelines.kubeflow.submit import bulk_job

    job = bulk_job(
        data,
        out,
        recipe(from_recipe).with_settings(settings or []),
        images_of(images),
        bundle=bundle,
        service_account=service_account,
        shards=shards,
        column=column,
        min_probability=min_probability,
    )
    start(Server(host=host, namespace=namespace, token_env=token_env), job, follow)


@bulk.command()
def schedule(
    data: Data,
    out: Out,
    cron: Cron,
    name: Annotated[str, Option(metavar="NAME", help="Name of the schedule")] = "grocer-bulk",
    bundle: Bundle = None,
    shards: Shards = 8,
    column: Column = "product_name",
    min_probability: MinProbability = 0.0,
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    service_account: Account = "grocer-pipeline",
    replace: Replace = False,
) -> None:
    """Classify a file on Kubeflow on a schedule.

    Each run uses the bundle deployed at that time, unless --bundle is set.
    """
    from pipelines.kubeflow.client import Server
    from pipelines.kubeflow.submit import bulk_job
    from pipelines.kubeflow.submit import schedule as schedule_job

    job = bulk_job(
        data,
        out,
        recipe(from_recipe).with_settings(settings or []),
        images_of(images),
        bundle=bundle,
        service_account=service_account,
        shards=shards,
        column=column,
        min_probability=min_probability,
    )
    server = Server(host=host, namespace=namespace, token_env=token_env)
    typer.echo(f"{name}: {schedule_job(server, job, name, cron, replace=replace)}")
