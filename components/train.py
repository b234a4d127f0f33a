"""train: a LoRA adapter on the base model's 4-bit weights."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.train, install_kfp_package=False)
def train(
    splits: dsl.Input[dsl.Dataset],
    config: str,
    model: dsl.Output[dsl.Model],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
):
    """Train the adapter; the page shows its loss, the metrics what it took."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.splits import Splits
    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.training.run import run

    source, target = Path(splits.path), Path(model.path)
    with step("train", target, {"splits": source}) as out:
        adapter = run(Splits.read(source), RunConfig.from_json(config), out)
    shutil.copyfile(target / "loss.html", page.path)
    for name, value in adapter.model_dump(exclude={"schema_version"}).items():
        if isinstance(value, int | float):
            metrics.log_metric(name, float(value))
