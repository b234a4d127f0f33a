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
    evaluated on the same products and beside which the comparison is recorded; empty if there is
    none.
    """
    import shutil
    import tempfile
    from pathlib import Path

    from grocer.artifacts.step import step

    inputs = {"model": Path(model.path), "splits": Path(splits.path)}
    target = Path(evaluation.path)
    with step("evaluate", target, inputs) as out, tempfile.TemporaryDirectory() as folder:
        from grocer.artifacts.adapter import Adapter
        from grocer.artifacts.splits import Splits
        from grocer.config.run import RunConfig
        from grocer.evaluation.champion import Champion
        from grocer.evaluation.run import run
        from grocer.release.registry import open_bundle

        previous = None
        if champion:
            loaded = open_bundle(champion, Path(folder), setting="champion", step="evaluate")
            previous = Champion(loaded, champion)
        adapter, held_out = Adapter.read(inputs["model"]), Splits.read(inputs["splits"])
        result = run(adapter, held_out, RunConfig.from_json(config), out, previous)
        shutil.copyfile(out / "report.html", page.path)
        for name, value in result.metrics.test:
            metrics.log_metric(name, float(value))
        for name, baseline in result.baselines.items():
            metrics.log_metric(f"{name}_accuracy", baseline.accuracy)
        for name, classifier in result.classifiers.items():
            metrics.log_metric(f"{name}_accuracy", classifier.accuracy)
            metrics.log_metric(f"{name}_log_loss", classifier.log_loss)
        matrix = [list(row) for row in result.confusion]
        confusion.log_confusion_matrix(list(result.labels), matrix)
