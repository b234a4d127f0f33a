"""Conditions for a retraining, such as `drift or 500 corrections or 30d`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from grocer.errors import ConfigError, redacted

_CONDITION = re.compile(
    r"(?P<drift>drift)|(?P<corrections>[1-9][0-9]{0,8}) corrections?|(?P<age>[1-9][0-9]{0,8})d",
    re.ASCII,
)


@dataclass(frozen=True)
class Condition:
    """One condition; `limit` is a number of corrections, an age in days, or 0 for drift."""

    kind: Literal["drift", "corrections", "age"]
    limit: int = 0

    def __str__(self) -> str:
        match self.kind:
            case "corrections":
                return f"{self.limit} corrections"
            case "age":
                return f"{self.limit}d"
            case "drift":
                return "drift"


@dataclass(frozen=True)
class Expression:
    """Conditions in disjunctive normal form: one alternative whose conditions are all met."""

    alternatives: tuple[tuple[Condition, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse conditions that are joined by `or` and `and`; `and` binds more strongly.

        Raises:
            ConfigError: a part is not a condition.
        """
        return cls(
            tuple(
                tuple(_condition(part, text) for part in alternative.split(" and "))
                for alternative in " ".join(text.split()).split(" or ")
            )
        )

    def __str__(self) -> str:
        return " or ".join(" and ".join(map(str, each)) for each in self.alternatives)

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The distinct conditions, in order."""
        return tuple(dict.fromkeys(each for group in self.alternatives for each in group))

    def is_met(self, met: Mapping[Condition, bool | None]) -> bool | None:
        """Return whether the conditions hold.

        Args:
            met: whether each condition is met; None: not known.

        Returns:
            None if it depends on a condition that is not known.
        """
        results = set[bool | None]()
        for alternative in self.alternatives:
            values = {met[condition] for condition in alternative}
            results.add(False if False in values else None if None in values else True)
        return True if True in results else None if None in results else False


def _condition(part: str, text: str) -> Condition:
    match = _CONDITION.fullmatch(part)
    if match is None:
        raise ConfigError(
            f"--when {text!r}: {part!r} is not a condition; expected drift, N corrections or Nd "
            "(age of the champion in days), joined by or / and"
        )
    if match["corrections"]:
        return Condition("corrections", int(match["corrections"]))
    return Condition("age", int(match["age"])) if match["age"] else Condition("drift")


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """When to retrain: the parameters of the pipeline that starts with `check_due`."""

    when: str
    metrics: str = ""
    """URL of Prometheus, or of a predictor's `/metrics`."""
    cool_down_days: float = 7.0
    """Minimum number of days since the gate last judged a model."""

    @classmethod
    def of(
        cls, when: str, *, metrics: str | None, corrections: str | None, cool_down_days: float
    ) -> Self:
        """Return a trigger whose conditions have their sources.

        Args:
            corrections: the setting `data.corrections`.

        Raises:
            ConfigError: an invalid condition, or one without a valid source.
        """
        kinds = {each.kind for each in Expression.parse(when).conditions}
        if "drift" in kinds and metrics is None:
            raise ConfigError(
                f"--when {when!r}: drift requires --metrics, the URL of Prometheus or of the "
                "predictor's /metrics"
            )
        if "corrections" in kinds and corrections is None:
            raise ConfigError(f"--when {when!r}: counting corrections requires --corrections")
        if metrics and (not re.match("https?://.", metrics) or redacted(metrics) != metrics):
            raise ConfigError(
                f"--metrics {metrics}: expected an http:// or https:// URL without credentials "
                "and query"
            )
        return cls(when=when, metrics=metrics or "", cool_down_days=cool_down_days)
