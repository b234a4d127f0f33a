"""record_attempt: record that a run was judged, so that the cool-down starts."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def record_attempt(
    model: dsl.Input[dsl.Model],
    splits: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    config: str,
    state: str,
):
    """Write the run's lineage to `state`, where `check_due` reads it."""
    from pathlib import Path

    from grocer.artifacts.step import reported

    artifacts = {"model": model, "splits": splits, "evaluation": evaluation, "decision": decision}
    inputs = {name: Path(each.path) for name, each in artifacts.items()}
    with reported("record_attempt"):
        from grocer.config.run import RunConfig
        from grocer.release.lineage import Lineage
        from grocer.retraining.attempts import record_attempt

        run = RunConfig.from_json(config)
        record_attempt(Lineage.of_run(inputs, run, evaluation.uri), state)
