"""The gate's decision about an evaluation."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from grocer.artifacts.base import Artifact, Digest, Record
from grocer.config.stages import GatePolicy


class Reason(Record):
    """The outcome of one rule, with the measured value and the limit."""

    rule: str
    passed: bool
    sentence: str


class Decision(Artifact):
    """`decision.json` of the gate."""

    FILE: ClassVar = "decision.json"
    passed: bool
    reasons: tuple[Reason, ...]
    policy: GatePolicy
    digests: dict[Literal["model", "splits", "evaluation"], Digest]
    """Digests of the artifacts judged; an invalid evaluation names neither model nor splits."""

    @property
    def failures(self) -> list[Reason]:
        """The rules that failed."""
        return [reason for reason in self.reasons if not reason.passed]

    @model_validator(mode="after")
    def _passed_only_if_every_rule_passed(self) -> Self:
        if self.passed != (bool(self.reasons) and not self.failures):
            raise ValueError("passed contradicts the reasons")
        return self
