"""fail_run: fail the run when the gate failed, for schedulers that alert on failed runs."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def fail_run(decision: dsl.Input[dsl.Artifact]):
    """Raise an error that lists the failed rules."""
    from pathlib import Path

    from grocer.artifacts.step import reported

    with reported("fail_run"):
        from grocer.artifacts.decision import Decision

        Decision.read(Path(decision.path)).require_passed({})
