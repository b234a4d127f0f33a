"""evaluate: the adapter and its baselines on products that it has not seen."""

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
    """Measure the adapter; metrics and confusion matrix are those of the test products.

    `champion` is the bundle now served, by its directory or its address in a store, scored on the
    same products; empty: there is none.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.evaluation import run as evaluate
    from grocer.release import registry as store

    adapter, source, target = Path(model.path), Path(splits.path), Path(evaluation.path)
    inputs = {"model": adapter, "splits": source}
    with step("evaluate", target, inputs) as out, tempfile.TemporaryDirectory() as fetched:
        served = Path(champion) if champion else None
        if "://" in champion:
            served = store.fetch(champion, Path(fetched)).path
        measured = evaluate.evaluate(adapter, source, RunConfig.from_json(config), out, served)
    shutil.copyfile(target / "report.html", page.path)
    for name, value in measured["metrics"]["test"].items():
        metrics.log_metric(name, float(value))
    for name, baseline in measured["baselines"].items():
        metrics.log_metric(f"{name}_accuracy", float(baseline["accuracy"]))
    confusion.log_confusion_matrix(measured["labels"], measured["confusion"])
