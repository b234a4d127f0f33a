"""deploy: write the bundle, roll it out if there is a store, and smoke-test it."""

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
    predictions: dsl.Output[dsl.Artifact],
    analysis: dsl.Output[dsl.Markdown],
):
    """Write and sign the bundle, and test it with requests to a predictor that serves it.

    If `deploy.store` is set, KServe rolls the bundle out from there; otherwise this step starts a
    predictor on loopback. With `deploy.analysis` a canary is promoted or rolled back; the step
    reports a verdict, and `analysis` has the decisions.
    """
    from pathlib import Path

    from grocer.artifacts.step import step

    artifacts = {"model": model, "splits": splits, "evaluation": evaluation, "decision": decision}
    inputs = {name: Path(each.path) for name, each in artifacts.items()}
    with step("deploy", Path(predictions.path), inputs) as out:
        from grocer.artifacts.canary_decision import to_markdown, verdict_of
        from grocer.config.run import RunConfig
        from grocer.dataset.run import most_purchased
        from grocer.errors import DeployError
        from grocer.io.atomic import write_json
        from grocer.progress import verdict
        from grocer.release.bundle import write_bundle

        run = RunConfig.from_json(config)
        key = run.deploy.effective_signing_key
        new = write_bundle(**inputs, config=run, root=Path(bundle.path), signing_key=key)
        names, decisions = most_purchased(inputs["splits"]), []
        if run.deploy.store is None:
            from serving.rollout.smoke_test import smoke_test

            result = smoke_test(new.path, names)
        else:
            from serving.rollout.deploy import deploy

            result = deploy(new, run.deploy, names, registry=run.registry)
            if run.deploy.analysis:
                from serving.rollout.progressive import Products, analyse

                products = Products.of(new, most_purchased(inputs["splits"], Products.COUNT))
                decisions = analyse(run.deploy, products=products, digest=new.digest)
                reasons = verdict_of(decisions)
                deployed = reasons[0].passed
                verdict("deploy", deployed, reasons)
                if not deployed and run.cluster.fail_if_gate_fails:
                    raise DeployError(reasons[0].sentence)
        Path(analysis.path).write_text(to_markdown(decisions))
        write_json(out / "predictions.json", result)
