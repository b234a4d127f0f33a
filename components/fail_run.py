"""fail_run: fail the run when the gate failed, for schedulers that alert on failed runs."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def fail_run(decision: dsl.Input[dsl.Artifact]):
    """Raise an error that lists the failed rules."""
    from pathlib import Path

    from grocer.artifacts.step import explained
    from grocer.gate.rules import check_digests
    from grocer.io.atomic import read_json

    with explained("fail_run"):
        check_digests(read_json(Path(decision.path) / "decision.json"), {})
