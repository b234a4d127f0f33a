"""`grocer bulk compile`, `submit` and `schedule`: whole files classified on Kubeflow, in shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grocer.recipes import recipe
from pipelines.kubeflow_commands import start, write
from pipelines.options import (
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

bulk = typer.Typer(
    name="bulk", help="Classify whole files on Kubeflow, in shards, now or at fixed times."
)

Data = Annotated[
    str, typer.Option(metavar="URI", help="CSV or Parquet on s3://, gs:// or https://")
]
Out = Annotated[
    str,
    typer.Option(
        metavar="URI",
        help="CSV or Parquet on s3:// or gs://; {date} and {time} become those of the run",
    ),
]
Bundle = Annotated[
    str | None,
    typer.Option(metavar="URI", help="The bundle to ask; else the one that serves"),
]
Shards = Annotated[int, typer.Option(min=1, max=1000, help="As many pods at most, side by side")]
Column = Annotated[str, typer.Option(metavar="NAME", help="Column of the product's name")]
MinProbability = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Leave the department of less sure rows empty")
]


@bulk.command(name="compile")
def compile_pipeline(
    out: Annotated[Path, typer.Argument(metavar="OUT.yaml", help="Where the pipeline is written")],
    from_recipe: Recipe = "llama2-7b-t4",
    settings: Settings = None,
    images: ImagesFile = None,
    kubernetes: KubernetesFormat = False,
    namespace: KubeflowNamespace = "kubeflow",
) -> None:
    """Compile the pipeline to YAML for Kubeflow Pipelines."""
    from pipelines.bulk import package

    made = package(recipe(from_recipe).with_settings(settings or []), images_of(images))
    write(made, out, namespace if kubernetes else None)


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
    """Classify a file now; every row is kept, in its place."""
    from pipelines.server import Server
    from pipelines.submit import bulk as bulk_job

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
    name: Annotated[str, typer.Option(metavar="NAME", help="Of the schedule")] = "grocer-bulk",
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
    """Classify a file at fixed times, with the bundle that serves then."""
    from pipelines.server import Server
    from pipelines.submit import bulk as bulk_job
    from pipelines.submit import schedule as schedule_job

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
