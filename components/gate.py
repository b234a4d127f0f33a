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

    from grocer.artifacts.step import digest_of, step
    from grocer.config.run import RunConfig
    from grocer.gate.rules import decide
    from grocer.io.atomic import read_json, write_json
    from grocer.progress import say

    source, target = Path(evaluation.path), Path(decision.path)
    with step("gate", target, {"evaluation": source}) as out:
        verdict = decide(read_json(source / "evaluation.json"), RunConfig.from_json(config).gate)
        write_json(out / "decision.json", verdict.to_json(digest_of(source)))
        (out / "decision.md").write_text(verdict.to_markdown())
        # Into the log, from which `grocer submit` takes the reasons.
        print(verdict.to_markdown(), flush=True)
        say("gate", "passed" if verdict.passed else "not passed")
    shutil.copyfile(target / "decision.md", reasons.path)
    return verdict.passed
