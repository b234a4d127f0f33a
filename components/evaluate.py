"""evaluate: measure the adapter and its baselines on held-out products."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.train, install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    splits: dsl.Input[dsl.Dataset],
    config: str,
    champion: str,
    evaluation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
):
    """Evaluate the adapter; metrics and confusion matrix are those of the test products.

    `champion` is the directory or object-storage address of the deployed bundle, which is
    evaluated on the same products; empty if there is none.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig

    adapter, source = Path(model.path), Path(splits.path)
    inputs = {"model": adapter, "splits": source}
    with (
        step("evaluate", Path(evaluation.path), inputs) as out,
        tempfile.TemporaryDirectory() as folder,
    ):
        from grocer.evaluation import run as stage
        from grocer.release import registry

        deployed = Path(champion) if champion else None
        if "://" in champion:
            deployed = registry.fetch(champion, Path(folder)).path
        result = stage.evaluate(adapter, source, RunConfig.from_json(config), out, deployed)
        shutil.copyfile(out / "report.html", page.path)
        for name, value in result["metrics"]["test"].items():
            metrics.log_metric(name, float(value))
        for name, baseline in result["baselines"].items():
            metrics.log_metric(f"{name}_accuracy", float(baseline["accuracy"]))
        confusion.log_confusion_matrix(result["labels"], result["confusion"])
