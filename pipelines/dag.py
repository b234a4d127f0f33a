"""The pipeline: seven steps, a gate before the last; from a `RunConfig` to compiled YAML."""

import tempfile
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from components.champion import champion as find_champion
from components.deploy import deploy
from components.evaluate import evaluate
from components.gate import gate
from components.images import IMAGES, Images
from components.ingest import ingest
from components.prompts import prompts
from components.train import train
from components.validate import validate
from grocer.config import RunConfig
from grocer.errors import ConfigError

CHECKPOINTS, BASE = "/mnt/checkpoints", "/mnt/base"


def build(run: RunConfig, images: Images = IMAGES, *, retry: bool = True) -> Any:
    """The pipeline for `run`, whose JSON is the default of its parameter `config`.

    What a node must offer and how often a step is retried is fixed here, from `run.cluster`;
    everything else follows the parameter. Where `run.deploy.store` is set, the bundle that serves
    is the champion, unless one is given. `retry=False` ends the run at a step's first failure.
    """
    run = placed(run)
    rolled_out = run.deploy.store is not None

    @dsl.pipeline(name="grocer", description="A product's department, by a gated LoRA adapter")
    def grocer(data: str, config: str = run.to_json(), champion: str = "") -> bool:
        read = ingest(data=data, config=config)
        checked = validate(tables=read.outputs["tables"], config=config)
        split = prompts(tables=read.outputs["tables"], config=config).after(checked)
        splits = split.outputs["splits"]
        trained = train(splits=splits, config=config)
        model = trained.outputs["model"]
        rival = find_champion(config=config, given=champion).after(checked) if rolled_out else None
        measured = evaluate(
            model=model,
            splits=splits,
            config=config,
            champion=rival.output if rival else champion,
        )
        evaluation = measured.outputs["evaluation"]
        decided = gate(evaluation=evaluation, config=config)
        with dsl.If(decided.outputs["Output"] == True, name="gate-passed"):  # noqa: E712
            served = deploy(
                model=model,
                splits=splits,
                evaluation=evaluation,
                decision=decided.outputs["decision"],
                config=config,
            )
        on_cpu = dict.fromkeys((read, checked, split, decided), images.data)
        on_cpu |= {task: images.serve for task in (rival, served) if task}
        for task, image in on_cpu.items():
            limit(task, image, run.cluster.data_cpu, run.cluster.data_memory)
        for task in (trained, measured):
            limit(task, images.train, run.cluster.model_cpu, run.cluster.model_memory)
            _place_on_gpu(task, run)
            if run.cluster.base_claim:
                kubernetes.mount_pvc(task, run.cluster.base_claim, BASE)
        if run.cluster.checkpoints_claim:
            kubernetes.mount_pvc(trained, run.cluster.checkpoints_claim, CHECKPOINTS)
        for task in (trained, measured, served):
            kubernetes.use_secret_as_env(
                task, run.cluster.hub_token_secret, {"token": run.base.token_env}, optional=True
            )
        for task in (read, trained, measured, served):
            reach_store(task, run)
        tasks = (*on_cpu, trained, measured)
        for task in tasks:
            harden(task)
        if retry and run.cluster.retries:
            for task in tasks:
                task.set_retry(run.cluster.retries, "30s", 2.0, "10m")
        # What a URI holds, and what serves, can change under an unchanged name.
        for task in (read, rival, served):
            if task:
                task.set_caching_options(False)
        return decided.outputs["Output"]

    return grocer


def placed(run: RunConfig) -> RunConfig:
    """The run with the paths at which its tasks find what is mounted.

    Raises:
        ConfigError: checkpoints are to go to a claim and elsewhere.
    """
    if run.cluster.checkpoints_claim is None:
        return run
    if run.train.checkpoints not in (None, CHECKPOINTS):
        raise ConfigError(
            f"train.checkpoints={run.train.checkpoints} and cluster.checkpoints_claim="
            f"{run.cluster.checkpoints_claim} name two places; unset one"
        )
    return run.with_settings([f"train.checkpoints={CHECKPOINTS}"])


def limit(task: dsl.PipelineTask, image: str, cpu: str, memory: str) -> None:
    """Run a task on an image, with these limits as its requests too: it needs what it may use."""
    task.set_container_image(image)
    task.set_cpu_limit(cpu).set_memory_limit(memory)
    task.set_cpu_request(cpu).set_memory_request(memory)


def reach_store(task: dsl.PipelineTask, run: RunConfig) -> None:
    """Let a task find the object store and its credentials, where there are such."""
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    places = ("AWS_ENDPOINT_URL", "AWS_REGION")
    kubernetes.use_secret_as_env(
        task, run.cluster.store_secret, {key: key for key in keys}, optional=True
    )
    kubernetes.use_config_map_as_env(
        task, run.cluster.store_config, {key: key for key in places}, optional=True
    )


def harden(task: dsl.PipelineTask) -> None:
    """Give a task's container no more rights than it needs; its caches go where it may write."""
    kubernetes.set_security_context(task, run_as_user=1000, run_as_group=1000, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, volume_name="tmp", mount_path="/tmp")


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
