"""register: register the verdict of a gate that failed in the model registry."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def register(
    model: dsl.Input[dsl.Model],
    splits: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    config: str,
    lineage: dsl.Output[dsl.Artifact],
):
    """Write `lineage`, from which `grocer lineage --register` can register the run later.

    A registry that is not available does not fail the step. Deploy registers a gate that passed.
    """
    from pathlib import Path

    from grocer.artifacts.step import step

    artifacts = {"model": model, "splits": splits, "evaluation": evaluation, "decision": decision}
    inputs = {name: Path(each.path) for name, each in artifacts.items()}
    with step("register", Path(lineage.path), inputs) as out:
        from grocer.config.run import RunConfig
        from grocer.release.lineage import Lineage
        from grocer.release.model_registry import register_verdict

        run = RunConfig.from_json(config)
        verdict = Lineage.of_run(inputs, run, evaluation.uri)
        verdict.write(out)
        register_verdict(verdict, run.registry.address, lineage.uri)
