"""The decision about a canary at one percentage of the traffic, by what both predictors did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from grocer.artifacts.base import Count, Digest, Record, Share
from grocer.events import Reason

Action = Literal["hold", "continue", "promote", "roll_back"]


class Signal(Reason):
    """A comparison of canary and stable predictor; it failed if the canary is worse."""

    canary: float
    stable: float
    p_value: Share
    level: Share
    """Significance level."""
    tolerated: float
    """Difference that is tolerated even if it is significant."""


class CanaryDecision(Record):
    """What was measured, and what follows from it."""

    action: Action
    """hold: wait for more requests; continue: go on with the next percentage."""
    reason: str
    percent: Count
    """The canary's share of the traffic."""
    stable: Digest
    canary: Digest
    stable_requests: Count
    canary_requests: Count
    """Requests that were answered."""
    required: Count
    """Requests that each predictor must answer at this percentage."""
    signals: tuple[Signal, ...]

    @property
    def promoted(self) -> bool:
        """Whether the canary becomes the stable predictor."""
        return self.action == "promote"

    @property
    def text(self) -> str:
        """The decision in one line."""
        return (
            f"{self.percent} % of the traffic, {self.canary_requests} requests to canary "
            f"{self.canary[:12]} and {self.stable_requests} to stable {self.stable[:12]}: "
            f"{self.action.replace('_', ' ')}, {self.reason}"
        )


def verdict_of(decisions: Sequence[CanaryDecision]) -> tuple[Reason, ...]:
    """Return the last decision, which tells whether the bundle is deployed, and its signals."""
    if not decisions:
        return (Reason(rule="canary", passed=True, sentence="There is no canary to analyse."),)
    last = decisions[-1]
    return (Reason(rule="canary", passed=last.promoted, sentence=last.text), *last.signals)


def to_markdown(decisions: Sequence[CanaryDecision]) -> str:
    """Return a page with a table for each decision."""
    lines = ["# Canary analysis", ""]
    if not decisions:
        lines.append("No canary was analysed.")
    for each in decisions:
        lines += [f"## {each.percent} %: {each.action.replace('_', ' ')}", "", each.text, ""]
        lines += ["| Signal | Result | Measured |", "|---|---|---|"]
        for signal in each.signals:
            result = "passed" if signal.passed else "**worse**"
            lines.append(f"| {signal.rule} | {result} | {signal.sentence} |")
        lines.append("")
    return "\n".join([*lines, ""])
