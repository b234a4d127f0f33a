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

    from grocer.artifacts.step import step
    from grocer.progress import verdict

    source = Path(evaluation.path)
    with step("gate", Path(decision.path), {"evaluation": source}) as out:
        from grocer.config.run import RunConfig
        from grocer.gate.run import run

        result = run(source, RunConfig.from_json(config).gate, out)
        verdict("gate", result.passed, result.reasons)
        shutil.copyfile(out / "decision.md", reasons.path)
    return result.passed
