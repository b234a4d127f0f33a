"""check_due: decide whether a retraining is due; if not, no other step runs."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.serve, install_kfp_package=False)
def check_due(
    config: str,
    when: str,
    metrics: str,
    cool_down_days: float,
    state: str,
    champion: str,
    reasons: dsl.Output[dsl.Markdown],
) -> bool:
    """Compare the conditions with their limits; the pipeline's condition reads the output."""
    from pathlib import Path

    from grocer.artifacts.step import reported

    with reported("check_due"):
        from grocer.config.run import RunConfig
        from grocer.retraining.check import check_due

        run = RunConfig.from_json(config)
        if not champion and run.deploy.store is not None:
            from serving.rollout import deploy

            champion = deploy.champion(run.deploy)
        result = check_due(
            when,
            run,
            champion=champion,
            metrics=metrics,
            cool_down_days=cool_down_days,
            state=state,
        )
        Path(reasons.path).write_text(result.markdown)
    return result.due
