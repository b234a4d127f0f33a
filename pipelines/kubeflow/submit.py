"""Submit a pipeline to Kubeflow Pipelines, as a run or as a recurring run."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.images import Images
from grocer.config.run import RunConfig
from grocer.config.stages import DataConfig
from grocer.errors import ConfigError, redacted
from grocer.io.storage import PROTOCOLS
from grocer.io.tables import check_format
from grocer.retraining.conditions import Trigger
from pipelines.kubeflow.client import Server
from pipelines.kubeflow.compiled import Package
from pipelines.kubeflow.cron import with_seconds

STORES = ("s3", "gs")
"""Protocols that pods can write to."""
EXPERIMENT = "grocer"
_BUNDLE = re.compile(r"((s3|gs)://[^/]+/(.+/)?|oci(\+native)?://[^/@]+/[^:@]+:)[0-9a-f]{64}")


@dataclass(frozen=True)
class Job:
    """A pipeline with its parameters and service account."""

    package: Package
    parameters: Mapping[str, Any]
    service_account: str


@dataclass(frozen=True)
class Submitted:
    """A run on the server, its page, and the names of its steps."""

    run_id: str
    page: str
    steps: frozenset[str]


def training_job(
    data: str,
    config: RunConfig,
    images: Images,
    *,
    champion: str | None,
    deploy: bool,
    service_account: str,
    trigger: Trigger | None = None,
    state: str | None = None,
) -> Job:
    """Return the training pipeline, with checked parameters.

    Args:
        data: address of the tables, as pods reach it.
        champion: address of the bundle to compare with; None: the deployed one.
        deploy: whether an adapter that passes the gate is deployed.
        trigger: when to train; None: always.
        state: with a trigger, URI of the directory with the run that was judged last; None:
            `last-run/<deploy.name>` in `deploy.store`.

    Raises:
        ConfigError: an address that pods cannot read, no store to deploy from, or Spark.
    """
    from pipelines.kubeflow import retraining, training

    _check_data(data, config.data)
    _check_bundle("--champion", champion)
    if not deploy:
        without = ("deploy.store=null", "deploy.analysis=false", "deploy.canary=[]")
        config = config.with_settings(without)
    elif config.deploy.store is None:
        raise ConfigError(
            "deploy.store is not set, so a passing adapter cannot be deployed; use --set "
            "deploy.store=s3://bucket/prefix, or --no-deploy to train and evaluate only"
        )
    parameters: dict[str, Any] = {"data": data} | ({"champion": champion} if champion else {})
    if trigger is None:
        if state is not None:
            raise ConfigError("--state requires --when")
        return Job(training.package(config, images), parameters, service_account)
    if not deploy and champion is None:
        raise ConfigError("--when: without a deployment there is no champion; set --champion")
    if state is None:
        state = f"{(config.deploy.store or '').rstrip('/')}/last-run/{config.deploy.name}"
        if state.partition("://")[0] not in STORES:
            raise ConfigError(
                "--when: deploy.store cannot keep the result of the latest run; set --state to a "
                "directory at s3:// or gs://"
            )
    check_address("--state", state, STORES)
    parameters |= asdict(trigger) | {"state": state}
    return Job(retraining.package(config, images), parameters, service_account)


def bulk_job(
    data: str,
    out: str,
    config: RunConfig,
    images: Images,
    *,
    bundle: str | None,
    service_account: str,
    **options: Any,
) -> Job:
    """Return the bulk pipeline, with checked parameters.

    Args:
        data, out: addresses of CSV or Parquet files, as pods reach them.
        bundle: address of the bundle to classify with; None: the deployed one.
        options: the pipeline's other parameters.

    Raises:
        ConfigError: an address that pods cannot reach, or an unsupported format.
    """
    from pipelines.kubeflow.bulk import package

    check_address("--data", data, PROTOCOLS)
    check_address("--out", out, STORES)
    for address in (data, out):
        check_format(Path(address))
    options = {name: value for name, value in options.items() if value != ""}
    for name in {"previous", "corrections"} & set(options):
        check_address(f"--{name}", options[name], STORES)
    _check_bundle("--bundle", bundle)
    parameters = {"data": data, "out": out, **options} | ({"bundle": bundle} if bundle else {})
    return Job(package(config, images), parameters, service_account)


def check_address(option: str, address: str, protocols: tuple[str, ...]) -> None:
    """Check that pods can reach an address: not a local path, and a supported protocol.

    Raises:
        ConfigError: they cannot.
    """
    protocol, _, path = address.partition("://")
    if protocol not in protocols or not path.strip("/"):
        supported = ", ".join(f"{protocol}://" for protocol in protocols)
        raise ConfigError(f"{option} {address}: pods cannot access this address; use {supported}")
    if redacted(address) != address:
        raise ConfigError(
            f"{option} {address}: Kubeflow stores and shows the address; remove the credentials "
            "from it, and give the pods access instead"
        )


def _check_data(data: str, config: DataConfig) -> None:
    check_address("--data", data, PROTOCOLS)
    if config.corrections is not None:
        check_address("--corrections", config.corrections, STORES)
    if config.partitions is not None:
        check_address("data.partitions", config.partitions, STORES)
    if config.engine == "spark":
        raise ConfigError(
            "data.engine=spark: Spark's executors cannot access the files of pods; "
            "use `grocer run` on a volume that they share, or data.engine=duckdb"
        )


def _check_bundle(option: str, address: str | None) -> None:
    if address is not None and not _BUNDLE.fullmatch(address):
        raise ConfigError(
            f"{option} {address}: not the address of a bundle; expected s3://, gs:// or oci://, "
            "ending in the digest"
        )


def submit(server: Server, job: Job) -> Submitted:
    """Start a run.

    Raises:
        ConfigError: the server is unreachable or rejects the request.
    """
    client = server.connect()
    with server.translated_errors():
        arguments = _upload(client, job)
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace)
        name = f"{job.package.name} {time.strftime('%Y-%m-%d %H:%M:%S')}"
        run = client.run_pipeline(experiment.experiment_id, name, **arguments)
    page = f"{client._get_url_prefix()}/#/runs/details/{run.run_id}"
    return Submitted(run.run_id, page, job.package.steps)


def schedule(server: Server, job: Job, name: str, cron: str, *, replace: bool = False) -> str:
    """Create a recurring run without concurrent runs and without catch-up.

    Returns:
        The id of the recurring run.

    Raises:
        ConfigError: invalid cron expression, the name exists, a run of the schedule to replace is
            active, or the server refuses.
    """
    cron, client = with_seconds(cron), server.connect()
    with server.translated_errors():
        experiment = client.create_experiment(EXPERIMENT, namespace=server.namespace)
        existing = client.list_recurring_runs(
            experiment_id=experiment.experiment_id, filter=_name_filter(name)
        ).recurring_runs
        if existing and not replace:
            raise ConfigError(f"--name {name}: schedule already exists; replace it with --replace")
        ids = [each.recurring_run_id for each in existing or []]
        _check_inactive(client, experiment.experiment_id, ids)
        created = client.create_recurring_run(
            experiment.experiment_id,
            name,
            cron_expression=cron,
            max_concurrency=1,
            no_catchup=True,
            **_upload(client, job),
        )
        for recurring_run_id in ids:
            client.delete_recurring_run(recurring_run_id)
    return str(created.recurring_run_id)


def _check_inactive(client: Any, experiment_id: str, recurring_run_ids: Collection[str]) -> None:
    """Check that no recent run of recurring runs is active.

    Kubeflow deletes a recurring run with its workflows, so that steps of an active run are killed.

    Raises:
        ConfigError: one is active.
    """
    if not recurring_run_ids:
        return
    recent = client.list_runs(
        page_size=100, sort_by="created_at desc", experiment_id=experiment_id
    ).runs
    for run in recent or []:
        if run.recurring_run_id in recurring_run_ids and run.state in ("PENDING", "RUNNING"):
            raise ConfigError(
                f"--replace: run {run.display_name} of the schedule is active, and Kubeflow would "
                "delete it with the schedule; try again when it has ended, or terminate it first"
            )


def _upload(client: Any, job: Job) -> dict[str, Any]:
    """Return the arguments of a run; upload the pipeline version if the server does not have it."""
    package = job.package
    pipeline_id = client.get_pipeline_id(package.name)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "pipeline.yaml")
        path.write_text(package.text)
        if pipeline_id is None:
            pipeline_id = client.upload_pipeline(str(path), package.name).pipeline_id
        name_filter = _name_filter(package.version)
        versions = client.list_pipeline_versions(pipeline_id, filter=name_filter).pipeline_versions
        if not versions:
            versions = [client.upload_pipeline_version(str(path), package.version, pipeline_id)]
    return {
        "params": dict(job.parameters),
        "pipeline_id": pipeline_id,
        "version_id": versions[0].pipeline_version_id,
        "service_account": job.service_account,
    }


def _name_filter(name: str) -> str:
    predicate = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
    return json.dumps({"predicates": [predicate]})
