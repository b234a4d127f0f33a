"""deploy: the bundle, and the predictor that answers from it."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def deploy(
    model: dsl.Input[dsl.Model],
    splits: dsl.Input[dsl.Dataset],
    evaluation: dsl.Input[dsl.Artifact],
    decision: dsl.Input[dsl.Artifact],
    config: str,
    target: str,
    bundle: dsl.Output[dsl.Model],
    answers: dsl.Output[dsl.Artifact],
):
    """Write the bundle under its digest and see it answer at `target`.

    `local` starts the predictor beside this step, on loopback, and asks it over HTTP.
    """
    from pathlib import Path

    from grocer.bundle import write_bundle
    from grocer.config import RunConfig
    from grocer.errors import DeployError
    from grocer.examples import most_purchased
    from grocer.files import write_json
    from grocer.step import step
    from serving.smoke import ask

    run = RunConfig.from_json(config)
    inputs = {
        "model": Path(model.path),
        "splits": Path(splits.path),
        "evaluation": Path(evaluation.path),
        "decision": Path(decision.path),
    }
    with step("deploy", Path(answers.path), inputs) as out:
        if target != "local":
            raise DeployError(f"target {target!r}: there is only 'local'")
        made = write_bundle(**inputs, config=run, root=Path(bundle.path))
        names = run.serving.smoke_names or most_purchased(inputs["splits"])
        write_json(out / "answers.json", ask(made.path, names))
