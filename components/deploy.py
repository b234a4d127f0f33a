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
    bundle: dsl.Output[dsl.Model],
    answers: dsl.Output[dsl.Artifact],
):
    """Write the bundle under its digest and see it answer.

    Where `deploy.store` is set, KServe rolls it out from there; else the predictor is started
    beside this step, on loopback, and asked over HTTP.
    """
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.dataset.run import most_purchased
    from grocer.io.atomic import write_json
    from grocer.release.bundle import write_bundle
    from serving.rollout.smoke_test import smoke_test

    run = RunConfig.from_json(config)
    inputs = {
        "model": Path(model.path),
        "splits": Path(splits.path),
        "evaluation": Path(evaluation.path),
        "decision": Path(decision.path),
    }
    with step("deploy", Path(answers.path), inputs) as out:
        made = write_bundle(**inputs, config=run, root=Path(bundle.path))
        names = most_purchased(inputs["splits"])
        if run.deploy.store is None:
            answered = smoke_test(made.path, names)
        else:
            from serving.rollout.deploy import deploy

            answered = deploy(made, run.deploy, names)
        write_json(out / "answers.json", answered)
