"""gate: whether the adapter may be served, and why."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    config: str,
    decision: dsl.Output[dsl.Artifact],
    reasons: dsl.Output[dsl.Markdown],
) -> bool:
    """Decide; the unnamed output is what the pipeline's condition reads."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import step
    from grocer.config.run import RunConfig
    from grocer.gate.run import run, to_markdown
    from grocer.progress import say

    source, target = Path(evaluation.path), Path(decision.path)
    with step("gate", target, {"evaluation": source}) as out:
        decided = run(source, RunConfig.from_json(config).gate, out)
        # Into the log, from which `grocer submit` takes the reasons.
        print(to_markdown(decided), flush=True)
        say("gate", "passed" if decided.passed else "not passed")
    shutil.copyfile(target / "decision.md", reasons.path)
    return decided.passed
