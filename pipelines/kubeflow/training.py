"""The pipeline: seven steps, a gate before the last; from a `RunConfig` to compiled YAML."""

from typing import Any, NamedTuple

from kfp import dsl

from components.build_dataset import build_dataset
from components.deploy import deploy
from components.evaluate import evaluate
from components.fail_run import fail_run
from components.find_champion import find_champion
from components.gate import gate
from components.images import IMAGES, Images
from components.ingest import ingest
from components.train import train
from components.validate import validate
from grocer.config.run import RunConfig
from pipelines.kubeflow.compiled import Package
from pipelines.kubeflow.resources import (
    harden,
    keep_checkpoints,
    on_cpu,
    reach_store,
    retry,
    serve_with,
    with_model,
    with_mount_paths,
)


def build(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Any:
    """The pipeline for `run`, whose JSON is the default of its parameter `config`.

    Its shape and what its pods ask for are fixed here, from `run.cluster` and `run.deploy.store`;
    everything else follows the parameter. Where `run.deploy.store` is set, the bundle that serves
    is the champion, unless one is given. Off a cluster the run ends at a step's first failure,
    and a no of the gate is no failure.
    """
    given = with_mount_paths(run) if on_cluster else run
    cluster, rolls_out = run.cluster, run.deploy.store is not None
    lasts = dsl.PipelineConfig(active_deadline_seconds=cluster.run_timeout_seconds)

    @dsl.pipeline(
        name="grocer",
        description="A product's department, by a gated LoRA adapter",
        pipeline_config=lasts,
    )
    def grocer(data: str, config: str = given.to_json(), champion: str = "") -> bool:
        read = ingest(data=data, config=config)
        checked = validate(tables=read.outputs["tables"], config=config)
        split = build_dataset(tables=read.outputs["tables"], config=config).after(checked)
        splits = split.outputs["splits"]
        trained = train(splits=splits, config=config)
        model = trained.outputs["model"]
        rival = find_champion(config=config, bundle=champion).after(trained) if rolls_out else None
        measured = evaluate(
            model=model,
            splits=splits,
            config=config,
            champion=rival.output if rival else champion,
        )
        evaluation = measured.outputs["evaluation"]
        decided = gate(evaluation=evaluation, config=config)
        decision = decided.outputs["decision"]
        with dsl.If(decided.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
            served = deploy(
                model=model,
                splits=splits,
                evaluation=evaluation,
                decision=decision,
                config=config,
            )
        refused = None
        if on_cluster and cluster.fail_if_gate_fails:
            with dsl.Else(name="gate-not-passed"):
                refused = fail_run(decision=decision)

        tasks = _Tasks(read, checked, split, trained, measured, decided, served, rival, refused)
        _place(tasks, images, run)
        _repeat(tasks, cluster.retries if on_cluster else None)
        return decided.outputs["Output"]

    return grocer


class _Tasks(NamedTuple):
    """The tasks of a pipeline, and those that not every one has."""

    read: dsl.PipelineTask
    checked: dsl.PipelineTask
    split: dsl.PipelineTask
    trained: dsl.PipelineTask
    measured: dsl.PipelineTask
    decided: dsl.PipelineTask
    served: dsl.PipelineTask
    rival: dsl.PipelineTask | None
    refused: dsl.PipelineTask | None


def _place(tasks: _Tasks, images: Images, run: RunConfig) -> None:
    """Say what each task's pod is made of, and what it may reach."""
    read, checked, split, trained, measured, decided, served, rival, refused = tasks
    cluster = run.cluster
    for task in _present(read, checked, split, decided, refused):
        on_cpu(task, images.data, cluster)
    for task in (trained, measured):
        with_model(task, images.train, run)
    if rival:
        on_cpu(rival, images.serve, cluster)
    serve_with(served, images.serve, run)
    keep_checkpoints(trained, run)
    for task in _present(read, trained, rival, measured, served):
        reach_store(task, cluster)
    for task in _present(*tasks):
        harden(task)


def _repeat(tasks: _Tasks, retries: int | None) -> None:
    """Say which tasks are tried again, and which are never taken from a former run."""
    if retries is not None:
        for task in _present(*tasks[:-1]):  # a refusal is final
            retry(task, retries)
    # What a URI holds, and what serves, can change under an unchanged name; and the gate's
    # reasons are read from its log, which a cached one does not have.
    for task in _present(tasks.read, tasks.rival, tasks.decided, tasks.served, tasks.refused):
        task.set_caching_options(False)


def package(run: RunConfig, images: Images = IMAGES, *, on_cluster: bool = True) -> Package:
    """The pipeline for `run`, to be compiled."""
    return Package(build(run, images, on_cluster=on_cluster), run.recipe)


def _present(*tasks: dsl.PipelineTask | None) -> list[dsl.PipelineTask]:
    """Those of the tasks that this pipeline has."""
    return [task for task in tasks if task is not None]
