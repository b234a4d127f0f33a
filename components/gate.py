"""gate: decide whether the adapter may be deployed."""

from kfp import dsl

from components.images import IMAGES


@dsl.component(base_image=IMAGES.data, install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    config: str,
    decision: dsl.Output[dsl.Artifact],
    reasons: dsl.Output[dsl.Markdown],
) -> bool:
    """Apply the gate's rules; the pipeline's condition reads the unnamed output."""
    import shutil
    from pathlib import Path

    from grocer.artifacts.step import digest_of, step
    from grocer.config.run import RunConfig
    from grocer.events import RuleResult
    from grocer.io.atomic import read_json, write_json
    from grocer.progress import verdict

    source = Path(evaluation.path)
    with step("gate", Path(decision.path), {"evaluation": source}) as out:
        from grocer.gate.rules import decide

        result = decide(read_json(source / "evaluation.json"), RunConfig.from_json(config).gate)
        content = result.to_json(digest_of(source))
        write_json(out / "decision.json", content)
        (out / "decision.md").write_text(result.to_markdown())
        verdict("gate", result.passed, [RuleResult(**each) for each in content["reasons"]])
        shutil.copyfile(out / "decision.md", reasons.path)
    return result.passed
