"""The training pipeline, from ingest to deploy, with the gate before deploy."""

import json
from collections.abc import Mapping
from typing import Any

from kfp import dsl

from components.images import IMAGES, Images
from components.training.build_dataset import build_dataset
from components.training.deploy import deploy
from components.training.evaluate import evaluate
from components.training.fail_run import fail_run
from components.training.find_champion import find_champion
from components.training.gate import gate
from components.training.ingest import ingest
from components.training.register import register
from components.training.train import train
from components.training.validate import validate
from grocer.config.run import RunConfig
from pipelines.kubeflow import resources
from pipelines.kubeflow.compiled import Package
from pipelines.kubeflow.trainjob import train_job
from pipelines.local.outputs import JUDGED

_MODEL_STEPS = {"train", "evaluate"}
_BUNDLE_STEPS = {"evaluate", "deploy"}
_SERVE_STEPS = {"check_due", "find_champion"}
_STORE_STEPS = _SERVE_STEPS | {"ingest", "train", "evaluate", "deploy", "record_attempt"}
_REGISTRY_STEPS = {"deploy", "register"}
# Objects behind a URI and the deployed bundle can change under an unchanged name. The gate's
# reasons are read from its log, which a cached step does not have.
_UNCACHED_STEPS = _SERVE_STEPS | {
    *("ingest", "gate", "deploy", "register", "fail_run", "record_attempt")
}

Parameter = Any
"""A parameter of a pipeline: kfp passes a channel in place of its value."""


def package(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Package:
    """Return the pipeline for `run`, whose JSON is the default of the parameter `config`.

    `run.cluster`, `run.deploy.store` and `run.registry` determine the steps and the pod resources;
    all other settings follow the parameter. With `run.deploy.store` the champion is the deployed
    bundle, unless the parameter `champion` names one. Off a cluster nothing is retried, and a
    failed gate never fails the run. With several processes, train creates a TrainJob on a cluster.
    """
    config_default = (resources.with_mount_paths(run) if on_cluster else run).to_json()
    text = "Fine-tune, evaluate and deploy a classifier of products by department"

    @resources.pipeline("grocer", text, run)
    def grocer(data: str, config: str = config_default, champion: str = "") -> bool:
        tasks = training_steps(run, images, data, config, champion, on_cluster)
        configure(tasks, images, run, on_cluster)
        return tasks["gate"].outputs["Output"]

    return Package(grocer, run.recipe)


def training_steps(
    run: RunConfig,
    images: Images,
    data: Parameter,
    config: Parameter,
    champion: Parameter,
    on_cluster: bool,
) -> dict[str, dsl.PipelineTask]:
    """Add all steps to the pipeline that is being defined, and return their tasks.

    Raises:
        ConfigError: `train.checkpoints` is not in an object store, which a TrainJob requires.
    """
    tasks = dict[str, dsl.PipelineTask]()
    tasks["ingest"] = ingest(data=data, config=config)
    tables = tasks["ingest"].outputs["tables"]
    tasks["validate"] = validate(tables=tables, config=config)
    tasks["build_dataset"] = build_dataset(tables=tables, config=config)
    tasks["build_dataset"].after(tasks["validate"])
    splits = tasks["build_dataset"].outputs["splits"]
    creates_job = on_cluster and run.train.processes > 1
    job = json.dumps(train_job(run, images.train)) if creates_job else ""
    tasks["train"] = train(splits=splits, config=config, job=job)
    model = tasks["train"].outputs["model"]
    if run.deploy.store is not None:
        tasks["find_champion"] = find_champion(config=config, bundle=champion)
        champion = tasks["find_champion"].after(tasks["train"]).output
    tasks["evaluate"] = evaluate(model=model, splits=splits, config=config, champion=champion)
    tasks["gate"] = gate(evaluation=tasks["evaluate"].outputs["evaluation"], config=config)
    judged = judged_artifacts(tasks)
    with dsl.If(tasks["gate"].outputs["Output"] == True, name="gate-passed"):  # noqa: E712
        tasks["deploy"] = deploy(**judged, config=config)
    if on_cluster and (run.registry.address or run.cluster.fail_if_gate_fails):
        with dsl.Else(name="gate-not-passed"):
            if run.registry.address:
                tasks["register"] = register(**judged, config=config)
            if run.cluster.fail_if_gate_fails:
                tasks["fail_run"] = fail_run(decision=judged["decision"])
                if run.registry.address:
                    tasks["fail_run"].after(tasks["register"])
    return tasks


def judged_artifacts(tasks: Mapping[str, dsl.PipelineTask]) -> dict[str, Any]:
    """Return the artifacts that a bundle or a lineage is made of."""
    return {name: tasks[step].outputs[name] for name, step in JUDGED.items()}


def configure(
    tasks: Mapping[str, dsl.PipelineTask], images: Images, run: RunConfig, on_cluster: bool
) -> None:
    """Set the image, resources, environment, retries and caching of each step."""
    for step, task in tasks.items():
        creates_job = step == "train" and run.train.processes > 1
        if creates_job:
            resources.use_train_job(task, images.data, run)
        elif step in _MODEL_STEPS:
            resources.use_model(task, images.train, run)
        elif step == "deploy":
            resources.use_deploy(task, images.serve, run)
        else:
            image = images.serve if step in _SERVE_STEPS else images.data
            resources.use_cpu(task, image, run)
        if step == "train":
            resources.mount_checkpoints(task, run)
        if step in _BUNDLE_STEPS:
            resources.mount_trust(task)
        if step in _STORE_STEPS:
            resources.use_object_store(task, run.cluster)
        if run.registry.address and step in _REGISTRY_STEPS:
            resources.use_registry(task)
        resources.harden(task)
        if step in _MODEL_STEPS and on_cluster:
            resources.retry(task, run.cluster.retries)
        if step in _UNCACHED_STEPS:
            task.set_caching_options(False)
        if on_cluster:
            resources.identify(task)
            # The quota is for the TrainJob: a step that holds a part of it could wait forever.
            if run.cluster.queue is not None and not creates_job:
                resources.enqueue(task, run.cluster.queue)
