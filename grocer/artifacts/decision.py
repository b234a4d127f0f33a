"""The gate's decision about an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Self

from pydantic import model_validator

from grocer.artifacts.base import Artifact, Digest
from grocer.config.stages import GatePolicy
from grocer.errors import BundleError
from grocer.events import Reason


class Decision(Artifact):
    """`decision.json` of the gate."""

    FILE: ClassVar = "decision.json"
    passed: bool
    reasons: tuple[Reason, ...]
    policy: GatePolicy
    digests: dict[str, Digest]
    """Digests of `model`, `splits` and `evaluation`; only the last if the evaluation is invalid."""

    @property
    def failures(self) -> list[Reason]:
        """The rules that failed."""
        return [reason for reason in self.reasons if not reason.passed]

    def require_passed(self, digests: Mapping[str, str]) -> None:
        """Raise an error unless the gate passed and judged the artifacts with these `digests`.

        Args:
            digests: of `model`, `splits` and `evaluation`, or some of them.

        Raises:
            BundleError: the gate failed, or judged another artifact.
        """
        if not self.passed:
            reasons = " ".join(reason.sentence for reason in self.failures)
            raise BundleError(f"the gate failed, so this adapter is not deployed: {reasons}")
        for name, digest in digests.items():
            if self.digests.get(name) != digest:
                raise BundleError(
                    f"the decision is about another {name}: its digest is "
                    f"{self.digests.get(name, 'missing')[:12]}, this one's is {digest[:12]}; "
                    "evaluate this one and run the gate again"
                )

    @model_validator(mode="after")
    def _passed_only_if_every_rule_passed(self) -> Self:
        if self.passed != (bool(self.reasons) and not self.failures):
            raise ValueError("passed contradicts the reasons")
        return self
