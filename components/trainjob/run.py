"""Run the training as a TrainJob.

Its pods run `grocer.training.node`. They exchange files with the step through
`<train.checkpoints>/trainjobs/<name>`. The name follows from the run, so that a step that starts
again finds the TrainJob of its earlier try.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from components.trainjob import INPUTS, NAMESPACE_VARIABLE, POD_VARIABLE, store_of
from components.trainjob.api import TrainJobs
from components.trainjob.follow import TrainJob
from grocer.artifacts.step import RUN_VARIABLE, digest_of, record_of, verified_files
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, StoppedError
from grocer.io.atomic import json_digest, output_directory
from grocer.io.storage import Storage
from grocer.io.trees import get_tree, put_tree


def run(splits: Path, config: RunConfig, template: Mapping[str, Any], out: Path) -> None:
    """Train as a TrainJob, and fetch its artifact to `out`.

    Args:
        template: the TrainJob without its name and inputs, as `pipelines.kubeflow.trainjob`
            returns it.

    Raises:
        TrainingError: the TrainJob failed; the message has the reason of its first failed pod.
        StoppedError: SIGTERM; the TrainJob is deleted, and its pods publish a checkpoint.
        DeployError: the Kubernetes API does not answer or rejects the TrainJob.
        OutputError: `train.checkpoints` cannot be reached.
        RuntimeError: the TrainJob failed with an internal error.
    """
    name = f"grocer-{os.environ[RUN_VARIABLE]}"
    address = f"{store_of(config)}/trainjobs/{name}"
    storage = Storage(address, setting="train.checkpoints", step="train")
    jobs = TrainJobs(os.environ[NAMESPACE_VARIABLE])
    inputs = {"splits": digest_of(splits), "config": config.digest, "template": template}
    body = deepcopy(dict(template))
    body["metadata"] |= {
        "name": name,
        "annotations": {INPUTS: json_digest(inputs)},
        # Deleted with the run's workflow, if this step cannot do it.
        "ownerReferences": jobs.owners(os.environ[POD_VARIABLE]),
    }
    trainer = body["spec"]["trainer"]
    trainer["args"] = [address]
    trainer["env"].append({"name": RUN_VARIABLE, "value": os.environ[RUN_VARIABLE]})

    def upload() -> None:
        put_tree(splits, storage, "splits")
        storage.write_bytes(config.to_json().encode(), "config.json")

    job = TrainJob(jobs, body)
    with _stopped_by_sigterm(name), job.deleted():
        job.start(upload)
        job.follow()
        with output_directory(out) as part:
            if problem := get_tree(storage, "model", part):
                raise ArtifactError(f"{address}/model: {problem}; run the pipeline again")
            verified_files(part)
            if record_of(part)["inputs"] != {"splits": inputs["splits"]}:
                raise ArtifactError(f"{address}/model was trained on other splits")
    storage.remove()


@contextmanager
def _stopped_by_sigterm(name: str) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise StoppedError(f"stopped by SIGTERM; TrainJob {name} is deleted")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
