"""`grocer bulk compile`, `submit` and `schedule`: classify whole files on Kubeflow, in shards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from pipelines.cli.kubeflow_commands import CompileOptions, OutFile, start
from pipelines.cli.options import (
    Account,
    Column,
    Cron,
    Follow,
    MinProbability,
    PipelineOptions,
    Replace,
    ScheduleName,
    ServerOptions,
    expand_groups,
)
from pipelines.kubeflow.client import ACCOUNT

if TYPE_CHECKING:
    from pipelines.kubeflow.submit import Job

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
        help="Output file, at s3:// or gs://; CSV or Parquet; {date} and {time} are replaced by "
        "those of the run",
    ),
]


@dataclass(frozen=True)
class BulkOptions(PipelineOptions):
    """Options of `bulk submit` and `bulk schedule`."""

    bundle: Annotated[
        str | None, Option(metavar="URI", help="Bundle to use; default: the deployed one")
    ] = None
    shards: Annotated[
        int,
        Option(
            metavar="N", min=1, max=1000, help="Maximum number of shards, each with its own pod"
        ),
    ] = 8
    column: Column = "product_name"
    min_probability: MinProbability = 0.0
    previous: Annotated[
        str,
        Option(
            metavar="URI",
            help="Earlier output; if it is of the same bundle, only names without a prediction "
            "there are classified",
        ),
    ] = ""
    corrections: Annotated[
        str,
        Option(metavar="URI", help="Corrections table, whose labels replace predictions"),
    ] = ""
    service_account: Account = ACCOUNT

    def job(self, data: str, out: str) -> Job:
        from pipelines.kubeflow.submit import bulk_job

        return bulk_job(
            data,
            out,
            self.config,
            self.images,
            bundle=self.bundle,
            service_account=self.service_account,
            shards=self.shards,
            column=self.column,
            min_probability=self.min_probability,
            previous=self.previous,
            corrections=self.corrections,
        )


@bulk.command(name="compile")
@expand_groups
def compile_pipeline(out: OutFile, *, options: CompileOptions) -> None:
    """Compile the bulk pipeline to YAML for Kubeflow Pipelines."""
    from pipelines.kubeflow.bulk import package

    options.write(package, out)


@bulk.command()
@expand_groups
def submit(
    *, data: Data, out: Out, options: BulkOptions, server: ServerOptions, follow: Follow = True
) -> None:
    """Classify a file on Kubeflow and follow the run.

    Every row is kept, in the same order. Ctrl-C stops following; the run continues.
    """
    start(server, options.job(data, out), follow)


@bulk.command()
@expand_groups
def schedule(
    *,
    data: Data,
    out: Out,
    cron: Cron,
    name: ScheduleName = "grocer-bulk",
    options: BulkOptions,
    server: ServerOptions,
    replace: Replace = False,
) -> None:
    """Classify a file on Kubeflow on a schedule.

    Each run uses the bundle deployed at that time, unless --bundle is set.
    """
    from pipelines.kubeflow.submit import schedule as schedule_job

    state = schedule_job(server, options.job(data, out), name, cron, replace=replace)
    typer.echo(f"{name}: {state}")
