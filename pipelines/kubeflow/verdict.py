"""The gate's verdict: read from what its step printed, and told with every rule's sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from rich.text import Text

_REASON = re.compile(r"^\s*- (\*\*failed\*\*|passed): (.+)$", re.MULTILINE)  # as decision.md has it


@dataclass(frozen=True)
class Verdict:
    """Whether the adapter is served, and why."""

    passed: bool
    reasons: Sequence[Mapping[str, Any]]
    """As in decision.json, `passed` and `sentence`; none where the gate's log is not kept."""


def reasons_in(log: str) -> list[dict[str, Any]]:
    """The reasons that the gate printed into its log."""
    return [
        {"passed": match[1] == "passed", "sentence": match[2].strip()}
        for match in _REASON.finditer(log)
    ]


def told(verdict: Verdict, yes: str, no: str, width: int) -> Iterator[Text]:
    """The verdict in words, and every rule's sentence, at most `width` columns wide: those that
    failed first."""
    yield Text(yes, "bold green") if verdict.passed else Text(no, "bold red")
    for reason in sorted(verdict.reasons, key=lambda reason: bool(reason["passed"])):
        mark = Text("✓ ", "green") if reason["passed"] else Text("✗ ", "red")
        for part in wrap(reason["sentence"], max(width - 2, 40)):
            yield mark + part
            mark = Text("  ")
