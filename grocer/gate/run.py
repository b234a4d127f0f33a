"""The gate stage: decide whether an evaluated adapter may be deployed."""

from __future__ import annotations

from pathlib import Path

from grocer.artifacts.decision import Decision
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.step import digest_of
from grocer.config.stages import GatePolicy
from grocer.gate.rules import judge


def run(evaluation: Path, policy: GatePolicy, out: Path) -> Decision:
    """Judge the artifact in `evaluation`; write decision.json and decision.md into `out`.

    A missing or invalid evaluation.json gives a failed decision.
    """
    path = evaluation / Evaluation.FILE
    decision = judge(path.read_bytes() if path.is_file() else b"", policy)
    digests = {**decision.digests, "evaluation": digest_of(evaluation)}
    decision = decision.model_copy(update={"digests": digests})
    decision.write(out)
    (out / "decision.md").write_text(to_markdown(decision), encoding="utf-8")
    return decision


def to_markdown(decision: Decision) -> str:
    """Return the decision as Markdown, failed rules first."""
    failed = [f"- **failed**: {reason.sentence}" for reason in decision.failures]
    passed = [f"- passed: {reason.sentence}" for reason in decision.reasons if reason.passed]
    heading = "# Gate passed" if decision.passed else "# Gate failed"
    summary = f"{len(passed)} of {len(decision.reasons)} rules passed."
    return "\n".join([heading, "", summary, "", *failed, *passed, ""])
