"""The pipeline: seven steps, a gate before the last; from a `RunConfig` to compiled YAML."""

import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from components.deploy import deploy
from components.evaluate import evaluate
from components.gate import gate
from components.images import IMAGES, Images
from components.ingest import ingest
from components.prompts import prompts
from components.train import train
from components.validate import validate
from grocer.config import RunConfig


def build(run: RunConfig, images: Images = IMAGES, *, retry: bool = True) -> Any:
    """The pipeline for `run`, whose JSON is the default of its parameter `config`.

    What a node must offer and how often a step is retried is fixed here, from `run.cluster`;
    everything else follows the parameter. `retry=False` ends the run at a step's first failure.
    """

    @dsl.pipeline(name="grocer", description="A product's department, by a gated LoRA adapter")
    def grocer(
        data: str, config: str = run.to_json(), target: str = "local", champion: str = ""
    ) -> bool:
        read = ingest(data=data, config=config)
        checked = validate(tables=read.outputs["tables"], config=config)
        split = prompts(tables=read.outputs["tables"], config=config).after(checked)
        splits = split.outputs["splits"]
        trained = train(splits=splits, config=config)
        model = trained.outputs["model"]
        measured = evaluate(model=model, splits=splits, config=config, champion=champion)
        evaluation = measured.outputs["evaluation"]
        decided = gate(evaluation=evaluation, config=config)
        with dsl.If(decided.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
            served = deploy(
                model=model,
                splits=splits,
                evaluation=evaluation,
                decision=decided.outputs["decision"],
                config=config,
                target=target,
            )
        for task in (read, checked, split, decided):
            _limit(task, images.data, run.cluster.data_cpu, run.cluster.data_memory)
        _limit(served, images.serve, run.cluster.data_cpu, run.cluster.data_memory)
        for task in (trained, measured):
            _limit(task, images.train, run.cluster.model_cpu, run.cluster.model_memory)
            _place_on_gpu(task, run)
        for task in (trained, measured, served):
            kubernetes.use_secret_as_env(
                task, run.cluster.hub_token_secret, {"token": run.base.token_env}, optional=True
            )
        if retry and run.cluster.retries:
            for task in (read, checked, split, trained, measured, decided, served):
                task.set_retry(run.cluster.retries, "30s", 2.0, "10m")
        # What a URI holds, and what serves, can change under an unchanged name.
        for task in (read, served):
            task.set_caching_options(False)
        return decided.outputs["Output"]

    return grocer


def _limit(task: dsl.PipelineTask, image: str, cpu: str, memory: str) -> None:
    task.set_container_image(image).set_cpu_limit(cpu).set_memory_limit(memory)


def _place_on_gpu(task: dsl.PipelineTask, run: RunConfig) -> None:
    """Ask for one GPU on the nodes that the configuration names, if it asks for any."""
    cluster = run.cluster
    if cluster.accelerator is None:
        return
    task.set_accelerator_type(cluster.accelerator).set_accelerator_limit(1)
    for label, value in sorted(cluster.node_selector.items()):
        kubernetes.add_node_selector(task, label, value)
    kubernetes.add_toleration(
        task, key=cluster.toleration_key, operator="Exists", effect="NoSchedule"
    )


def compiled(run: RunConfig, images: Images = IMAGES, *, retry: bool = True) -> str:
    """The pipeline as YAML: the same text for the same configuration, images and kfp."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "grocer.yaml")
        compiler.Compiler().compile(build(run, images, retry=retry), str(path))
        return path.read_text()
