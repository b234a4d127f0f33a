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

    from grocer.artifacts.adapter import Adapter
    from grocer.artifacts.splits import Splits
    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.evaluation import run as evaluation_stage
    from grocer.release.registry import open_bundle

    inputs = {"model": Path(model.path), "splits": Path(splits.path)}
    target = Path(evaluation.path)
    with step("evaluate", target, inputs) as out, tempfile.TemporaryDirectory() as fetched:
        measured = evaluation_stage.run(
            Adapter.read(inputs["model"]),
            Splits.read(inputs["splits"]),
            RunConfig.from_json(config),
            out,
            open_bundle(champion, Path(fetched)).reference if champion else None,
        )
    shutil.copyfile(target / "report.html", page.path)
    for name, value in measured.metrics.test:
        metrics.log_metric(name, float(value))
    for name, baseline in measured.baselines.items():
        metrics.log_metric(f"{name}_accuracy", baseline.accuracy)
    confusion.log_confusion_matrix(list(measured.labels), [list(row) for row in measured.confusion])
