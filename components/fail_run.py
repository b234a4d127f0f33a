"""refuse: ends a run as failed, for schedulers that want to see where the gate said no."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def refuse(decision: dsl.Input[dsl.Artifact]):
    """Fail with the rules that were not met."""
    from pathlib import Path

    from grocer.artifacts.step import explained
    from grocer.gate.rules import check_digests
    from grocer.io.atomic import read_json

    with explained("refuse"):
        check_digests(read_json(Path(decision.path) / "decision.json"), {})
