"""train: fine-tune a LoRA adapter on the base model's 4-bit weights."""

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
    """Train the adapter; the page shows the loss, and the metrics show duration and memory."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import step

    source = Path(splits.path)
    with step("train", Path(model.path), {"splits": source}) as out:
        from grocer.artifacts.splits import Splits
        from grocer.config.run import RunConfig
        from grocer.training.run import run

        adapter = run(Splits.read(source), RunConfig.from_json(config), out)
        shutil.copyfile(out / "loss.html", page.path)
        for name, value in adapter:
            if isinstance(value, int | float):
                metrics.log_metric(name, float(value))
