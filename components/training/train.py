"""train: fine-tune a LoRA adapter on the base model's 4-bit weights."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.train, install_kfp_package=False)
def train(
    splits: dsl.Input[dsl.Dataset],
    config: str,
    job: str,
    model: dsl.Output[dsl.Model],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train the adapter; the page shows the loss, and the metrics show duration and memory.

    With a `job` (JSON), it is trained as this TrainJob, otherwise on this machine.
    """
    import json
    import shutil
    import sys
    from pathlib import Path

    from grocer.artifacts.adapter import Adapter
    from grocer.artifacts.splits import Splits
    from grocer.artifacts.step import reported, step
    from grocer.config.run import RunConfig

    source, out, run = Path(splits.path), Path(model.path), RunConfig.from_json(config)
    if job:
        with reported("train"):
            from components.trainjob.run import run as train_as_job

            train_as_job(source, run, json.loads(job), out)
    elif run.train.processes > 1:
        from grocer.training.distributed import Node, start

        # The first process reports the step's events.
        if code := start(source, run, out, Node(run.train.processes_per_node)):
            sys.exit(code)
    else:
        with step("train", out, {"splits": source}) as part:
            from grocer.training.run import run as train_here

            train_here(Splits.read(source), run, part)
    shutil.copyfile(out / "loss.html", page.path)
    for name, value in Adapter.read(out):
        if isinstance(value, int | float):
            metrics.log_metric(name, float(value))
