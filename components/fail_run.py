"""fail_run: fail the run when the gate failed, for schedulers that alert on failed runs."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def fail_run(decision: dsl.Input[dsl.Artifact]):
    """Raise an error that lists the failed rules."""
    from pathlib import Path

    from grocer.artifacts.step import reported
    from grocer.io.atomic import read_json

    with reported("fail_run"):
        from grocer.gate.rules import check_digests

        check_digests(read_json(Path(decision.path) / "decision.json"), {})
