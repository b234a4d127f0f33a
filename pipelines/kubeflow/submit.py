"""Hands a pipeline to Kubeflow Pipelines: a version, a run, a schedule."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.images import IMAGES, Images
from grocer.config.run import RunConfig
from grocer.errors import ConfigError
from grocer.io.storage import PROTOCOLS
from grocer.io.tables import check_format
from pipelines.kubeflow.client import Server
from pipelines.kubeflow.compiled import Package

STORES = ("s3", "gs")  # where pods write
EXPERIMENT = "grocer"
ACCOUNT = "grocer-pipeline"  # of manifests/, which may roll out a bundle
_BUNDLE = re.compile(r"(s3|gs)://[^/]+/(.+/)?[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to run, and as whom."""

    package: Package
    parameters: Mapping[str, Any]
    service_account: str = ACCOUNT


def training(
    data: str,
    config: RunConfig,
    images: Images = IMAGES,
    *,
    champion: str | None = None,
    rolled_out: bool = True,
    service_account: str = ACCOUNT,
) -> Job:
    """The pipeline from tables to a served model, checked before it costs anything.

    Args:
        data: address of the tables, as the pods reach it.
        champion: address of the bundle to beat, where it is not the one that serves.
        rolled_out: whether what passes is to be served; False: the pipeline ends with its verdict.

    Raises:
        ConfigError: an address that no pod can read, or nowhere to roll out from.
    """
    from pipelines.kubeflow.training import package

    check_address("--data", data, PROTOCOLS)
    if champion is not None:
        _check_bundle("--champion", champion)
    if not rolled_out:
        config = config.with_settings(["deploy.store=null", "deploy.canary=0"])
    elif config.deploy.store is None:
        raise ConfigError(
            "deploy.store is not set, so a model that passes would not be served; give "
            "--set deploy.store=s3://bucket/prefix, or --no-deploy to train and judge only"
        )
    given = {"champion": champion} if champion else {}
    return Job(
        package=package(config, images),
        parameters={"data": data, **given},
        service_account=service_account,
    )


def bulk(
    data: str,
    out: str,
    config: RunConfig,
    images: Images = IMAGES,
    *,
    bundle: str | None = None,
    service_account: str = ACCOUNT,
    **options: Any,
) -> Job:
    """The pipeline that classifies a whole file, checked before it costs anything.

    Args:
        data, out: addresses of CSV or Parquet, as the pods reach them.
        bundle: address of the bundle that answers, where it is not the one that serves.
        options: the pipeline's other parameters.

    Raises:
        ConfigError: an address that no pod can reach, or another format.
    """
    from pipelines.kubeflow.bulk import package

    check_address("--data", data, PROTOCOLS)
    check_address("--out", out, STORES)
    for address in (data, out):
        check_format(Path(address))
    if bundle is not None:
        _check_bundle("--bundle", bundle)
    given = {"data": data, "out": out, **options} | ({"bundle": bundle} if bundle else {})
    return Job(package=package(config, images), parameters=given, service_account=service_account)


def check_address(option: str, address: str, protocols: tuple[str, ...]) -> None:
    """Refuse what a pod can't reach.

    Raises:
        ConfigError: a path of this machine, or another protocol.
    """
    known = ", ".join(f"{protocol}://" for protocol in protocols)
    protocol, separator, place = address.partition("://")
    if not separator or protocol == "file":
        raise ConfigError(f"{option} {address}: a pod can't reach a path of this machine: {known}")
    if protocol not in protocols or not place.strip("/"):
        raise ConfigError(f"{option} {address}: no address that a pod can reach: {known}")


def _check_bundle(option: str, address: str) -> None:
    if not _BUNDLE.fullmatch(address):
        raise ConfigError(
            f"{option} {address}: no bundle's address; expected s3:// or gs://, and the digest "
            "as the last part"
        )


@dataclass(frozen=True)
class Submitted:
    """A run on the server, the page that shows it, and the names of its steps."""

    run_id: str
    page: str
    steps: frozenset[str]


def submit(server: Server, job: Job) -> Submitted:
    """Start one run.

    Raises:
        ConfigError: the server can't be reached, or refuses.
    """
    client = server.connect()
    with server.explained():
        version = _upload(client, job.package)
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace)
        run = client.run_pipeline(
            experiment.experiment_id,
            f"{job.package.name} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            params=dict(job.parameters),
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            service_account=job.service_account,
        )
    page = f"{client._get_url_prefix()}/#/runs/details/{run.run_id}"
    return Submitted(run.run_id, page, job.package.steps)


def schedule(server: Server, job: Job, name: str, cron: str, *, replace: bool = False) -> str:
    """Run `job` whenever `cron` says, one run at a time and none for times that were missed.

    Returns:
        The id of the recurring run.

    Raises:
        ConfigError: no cron expression, a schedule of that name exists, or the server refuses.
    """
    when, client = _six_fields(cron), server.connect()
    with server.explained():
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace)
        listed = client.list_recurring_runs(
            experiment_id=experiment.experiment_id, filter=_named(name)
        )
        former = [each.recurring_run_id for each in listed.recurring_runs or []]
        if former and not replace:
            raise ConfigError(f"--name {name}: there is such a schedule; give --replace")
        version = _upload(client, job.package)
        made = client.create_recurring_run(
            experiment.experiment_id,
            name,
            cron_expression=when,
            max_concurrency=1,
            no_catchup=True,
            params=dict(job.parameters),
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            service_account=job.service_account,
        )
        for each in former:
            client.delete_recurring_run(each)
    return str(made.recurring_run_id)


def _upload(client: Any, package: Package) -> Any:
    """The pipeline version that is this package's text; uploaded once, found ever after."""
    pipeline = client.get_pipeline_id(package.name)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "pipeline.yaml")
        path.write_text(package.text)
        if pipeline is None:
            pipeline = client.upload_pipeline(str(path), package.name).pipeline_id
        listed = client.list_pipeline_versions(pipeline, filter=_named(package.version))
        if listed.pipeline_versions:
            return listed.pipeline_versions[0]
        return client.upload_pipeline_version(str(path), package.version, pipeline_id=pipeline)


def _named(name: str) -> str:
    """The server's filter for what is called `name`."""
    equal = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [equal]})


def _six_fields(cron: str) -> str:
    """A cron expression as KFP wants it: with seconds."""
    fields = cron.split()
    if len(fields) not in (5, 6):
        raise ConfigError(f"--cron {cron!r}: expected 5 fields, or 6 with seconds first")
    return " ".join(["0", *fields] if len(fields) == 5 else fields)
