"""Hands the pipeline to Kubeflow Pipelines: a version, a run that is followed, a schedule."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.images import IMAGES, Images
from grocer.config import RunConfig
from grocer.errors import ConfigError
from pipelines.events import Event
from pipelines.progress import Progress
from pipelines.run import RunError

PIPELINE = "grocer"
STEPS = ("ingest", "validate", "prompts", "train", "evaluate", "gate", "deploy")
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
PATIENCE = 12  # polls in a row that may fail before following gives up


@dataclass(frozen=True, kw_only=True)
class Server:
    """Where Kubeflow Pipelines is, as kfp's own client takes it.

    Without a host, kfp's client asks the environment (`KF_PIPELINES_ENDPOINT`), the pod's
    service account, then the kubeconfig.
    """

    host: str | None = None
    namespace: str | None = None
    """The user's namespace where Kubeflow is shared by several."""
    token_env: str = "KF_PIPELINES_TOKEN"
    """Environment variable that holds a bearer token, if one is needed."""

    def connect(self) -> Any:
        """A `kfp.Client`; that the server answers is seen at the first request."""
        import kfp

        # kfp logs each failed attempt with its traceback to whoever listens.
        logging.getLogger().addHandler(logging.NullHandler())
        with warnings.catch_warnings(), _explained(self):
            warnings.simplefilter("ignore")
            return kfp.Client(
                host=self.host,
                namespace=self.namespace or "kubeflow",
                existing_token=os.environ.get(self.token_env),
            )


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to run, and as whom."""

    data: str
    config: RunConfig
    images: Images = IMAGES
    experiment: str = "grocer"
    service_account: str | None = None

    def __post_init__(self) -> None:
        if not re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*://", self.data):
            raise ConfigError(
                f"--data {self.data}: a pod can't read a path of this machine; "
                "give s3://, gs:// or https://"
            )

    @property
    def parameters(self) -> dict[str, str]:
        """The pipeline's parameters."""
        return {"data": self.data, "config": self.config.to_json()}


@dataclass(frozen=True)
class Submitted:
    """A run on the server and the page that shows it."""

    run_id: str
    page: str


def submit(server: Server, job: Job) -> Submitted:
    """Start one run.

    Raises:
        ConfigError: the server can't be reached, or refuses.
    """
    client = server.connect()
    with _explained(server):
        version = _upload(client, job)
        experiment = client.create_experiment(job.experiment, namespace=server.namespace)
        run = client.run_pipeline(
            experiment.experiment_id,
            f"grocer {time.strftime('%Y-%m-%d %H:%M:%S')}",
            params=job.parameters,
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            service_account=job.service_account,
        )
    return Submitted(run.run_id, f"{client._get_url_prefix()}/#/runs/details/{run.run_id}")


def schedule(server: Server, job: Job, name: str, cron: str, *, replace: bool = False) -> str:
    """Run `job` whenever `cron` says, one run at a time and none for times that were missed.

    Returns:
        The id of the recurring run.

    Raises:
        ConfigError: no cron expression, a schedule of that name exists, or the server refuses.
    """
    when, client = _six_fields(cron), server.connect()
    with _explained(server):
        experiment = client.create_experiment(job.experiment, namespace=server.namespace)
        listed = client.list_recurring_runs(
            experiment_id=experiment.experiment_id, filter=_named(name)
        )
        former = [each.recurring_run_id for each in listed.recurring_runs or []]
        if former and not replace:
            raise ConfigError(f"--name {name}: there is such a schedule; give --replace")
        version = _upload(client, job)
        made = client.create_recurring_run(
            experiment.experiment_id,
            name,
            cron_expression=when,
            max_concurrency=1,
            no_catchup=True,
            params=job.parameters,
            pipeline_id=version.pipeline_id,
            version_id=version.pipeline_version_id,
            service_account=job.service_account,
        )
        for each in former:
            client.delete_recurring_run(each)
    return str(made.recurring_run_id)


def follow(server: Server, submitted: Submitted, progress: Progress, every: float = 5.0) -> bool:
    """Show a run's steps until it ends; whether the gate passed and the adapter was deployed.

    Raises:
        RunError: the run failed or was canceled; the message names the steps.
    """
    client = server.connect()
    states: dict[str, str] = {}
    for run in _polls(server, client, submitted.run_id, every):
        for step, state in _steps(run).items():
            for event in _events(step, states.get(step), state):
                progress.follow(event)
            states[step] = state
        if str(run.state) in ENDED:
            break
    if run.state != "SUCCEEDED":
        failed = [step for step, state in states.items() if state == "FAILED"]
        why = f": {', '.join(failed)} failed" if failed else ""
        raise RunError(f"grocer: the run ended {run.state}{why}; its page: {submitted.page}")
    deployed = states.get("deploy") == "SUCCEEDED"
    if not deployed:
        progress.skip("deploy", "skipped: the gate said no")
    return deployed


def _polls(server: Server, client: Any, run_id: str, every: float) -> Iterator[Any]:
    """The run, again and again; a server that is away for a while does not end it."""
    import kfp_server_api
    import urllib3

    missed = 0
    while True:
        try:
            run = client.get_run(run_id)
        except (urllib3.exceptions.HTTPError, kfp_server_api.ApiException):
            missed += 1
            if missed >= PATIENCE:
                with _explained(server):
                    raise
        else:
            missed = 0
            yield run
        time.sleep(every)


def _steps(run: Any) -> dict[str, str]:
    """The state of each step that the server knows of; of a retried one, the latest."""
    details = (run.run_details and run.run_details.task_details) or []
    known = [each for each in details if each.display_name in STEPS and each.state]
    known.sort(key=lambda each: str(each.create_time))
    return {each.display_name: str(each.state) for each in known}


def _events(step: str, before: str | None, now: str) -> Iterator[Event]:
    """What a change of state means to someone who watches."""
    if before == now or now not in {"RUNNING", "SUCCEEDED", "FAILED"}:
        return
    if before != "RUNNING":
        yield Event("started", step)
    if now != "RUNNING":
        yield Event("succeeded" if now == "SUCCEEDED" else "broke", step)


def _upload(client: Any, job: Job) -> Any:
    """The pipeline version that is this job's YAML; uploaded once, found ever after."""
    from pipelines.dag import compiled

    text = compiled(job.config, job.images)
    name = f"{job.config.recipe}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    pipeline = client.get_pipeline_id(PIPELINE)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        package = Path(folder, "grocer.yaml")
        package.write_text(text)
        if pipeline is None:
            pipeline = client.upload_pipeline(str(package), PIPELINE).pipeline_id
        listed = client.list_pipeline_versions(pipeline, filter=_named(name))
        if listed.pipeline_versions:
            return listed.pipeline_versions[0]
        return client.upload_pipeline_version(str(package), name, pipeline_id=pipeline)


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


@contextlib.contextmanager
def _explained(server: Server) -> Iterator[None]:
    """Turn what a server, or none, answers into one clear line."""
    import kfp_server_api
    import urllib3

    where = server.host or "the host that kfp's client found"
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except (urllib3.exceptions.HTTPError, TimeoutError) as error:
        raise ConfigError(f"--host: no Kubeflow Pipelines answers at {where}: {error}") from error
    except kfp_server_api.ApiException as error:
        hint = f"; a token is taken from {server.token_env}" if error.status in (401, 403) else ""
        said = " ".join(str(error.body or error.reason).split())[:300]
        raise ConfigError(f"{where} refused ({error.status}): {said}{hint}") from error
