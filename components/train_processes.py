"""train in several processes: as a TrainJob on a cluster, or on this machine."""

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
    """Train the adapter as the TrainJob `job` (JSON), or on this machine if it is empty."""
    import json
    import shutil
    import sys
    from pathlib import Path

    from grocer.artifacts.adapter import Adapter
    from grocer.artifacts.step import reported
    from grocer.config.run import RunConfig

    source, out, run = Path(splits.path), Path(model.path), RunConfig.from_json(config)
    if job:
        with reported("train"):
            from components.trainjob.run import run as train_as_job

            train_as_job(source, run, json.loads(job), out)
    else:
        from grocer.training.distributed import Node, start

        # The first process reports the step's events.
        if code := start(source, run, out, Node(run.train.processes_per_node)):
            sys.exit(code)
    shutil.copyfile(out / "loss.html", page.path)
    for name, value in Adapter.read(out):
        if isinstance(value, int | float):
            metrics.log_metric(name, float(value))
