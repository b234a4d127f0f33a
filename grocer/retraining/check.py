"""Decides whether a retraining is due."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from grocer import progress
from grocer.config.run import RunConfig
from grocer.errors import GrocerError, SourceError
from grocer.inference.drift import ERROR_PROBABILITY, WINDOW
from grocer.ingest.corrections import count_since, open_table
from grocer.retraining.attempts import read_last_attempt
from grocer.retraining.conditions import Condition, Expression
from grocer.retraining.sources import read_champion, read_drift

_DAY = 24 * 3600.0
_WORDS = {True: "yes", False: "no", None: "unknown"}


@dataclass(frozen=True)
class Check:
    """A condition, what was measured, and the limit; `met` is None if it could not be measured."""

    condition: str
    value: str
    limit: str
    met: bool | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row in the table."""
        return self.condition, self.value, self.limit, _WORDS[self.met]


@dataclass(frozen=True)
class Due:
    """Whether a retraining is due, why, and all that was checked."""

    due: bool
    reason: str
    checks: tuple[Check, ...]

    @property
    def markdown(self) -> str:
        """A page with the table."""
        rows = [HEADING, ("---",) * len(HEADING), *(check.cells for check in self.checks)]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return f"# {self.reason}\n\n{table}\n"


HEADING = ("condition", "value", "limit", "met")


def check_due(
    when: str,
    config: RunConfig,
    *,
    champion: str,
    metrics: str,
    cool_down_days: float,
    state: str,
    now: datetime | None = None,
) -> Due:
    """Decide whether a retraining is due, and report each condition with its value and limit.

    It is due if there is no champion, or if the conditions hold. It is not due during the
    cool-down, whatever else holds: a classifier that lost is not trained again at each check.

    Args:
        champion: path or URI of the deployed bundle; empty: none.
        state: directory or URI with the `lineage.json` of the run that was judged last.

    Raises:
        ConfigError: `when` is invalid.
        ArtifactError: `state` is not readable.
        SourceError: the result depends on a condition that could not be measured.
    """
    expression, now = Expression.parse(when), now or datetime.now(UTC)
    cool_down = _cool_down(state, cool_down_days, now)
    if champion:
        found = dict(_measure(expression, config, champion, metrics, now))
        met = expression.is_met({condition: check.met for condition, check in found.items()})
        checks = (*found.values(), cool_down)
    else:
        met, checks = True, (Check("no champion", "no bundle is deployed", "-", True), cool_down)
    progress.table("check_due", [HEADING, *(check.cells for check in checks)])
    if not cool_down.met:
        result = Due(False, f"not due: the cool-down of {cool_down.limit} is not over", checks)
    elif met is None:
        unknown = next(check for check in checks if check.met is None)
        raise SourceError(f"cannot decide whether {unknown.condition} is met: {unknown.value}")
    else:
        reasons = ", ".join(each.condition for each in checks[:-1] if each.met)
        reason = f"retraining is due: {reasons}" if met else f"not due: {expression} is not met"
        result = Due(met, reason, checks)
    progress.say("check_due", result.reason)
    return result


def _cool_down(state: str, days: float, now: datetime) -> Check:
    last = read_last_attempt(state)
    if last is None:
        return Check("cool-down over", "no run was judged yet", _in_days(days), True)
    age = _days(last.finished, now)
    value = f"{age:.1f} days since a run was judged ({last.verdict})"
    return Check("cool-down over", value, _in_days(days), age >= days)


def _measure(
    expression: Expression, config: RunConfig, champion: str, metrics: str, now: datetime
) -> Iterator[tuple[Condition, Check]]:
    """Yield the check of each condition; an error becomes the value of a check."""
    for condition in expression.conditions:
        met: bool | None
        try:
            match condition.kind:
                case "drift":
                    value, met = _drift(metrics, config.deploy.namespace)
                case "corrections":
                    value, new = _corrections(champion, config.data.corrections or "")
                    met = new >= condition.limit
                case "age":
                    days = _days(read_champion(champion).build.started, now)
                    value, met = f"{days:.1f} days", days >= condition.limit
        except GrocerError as error:
            value, met = str(error), None
        yield condition, Check(str(condition), value, _limit(condition), met)


def _limit(condition: Condition) -> str:
    if condition.kind == "drift":
        return f"p ≤ {ERROR_PROBABILITY:g}"
    return _in_days(condition.limit) if condition.kind == "age" else f"{condition.limit:,}"


def _drift(url: str, namespace: str) -> tuple[str, bool]:
    lowest = read_drift(url, namespace)
    if lowest is None:
        return f"no window of {WINDOW:,} names yet", False
    p_value, signal = lowest
    return f"p = {p_value:.2g} ({signal})", p_value <= ERROR_PROBABILITY


def _corrections(champion: str, address: str) -> tuple[str, int]:
    manifest, table = read_champion(champion), open_table(address, "data.corrections")
    if manifest.config.data.corrections != address:
        # The champion has learned from no corrections, or from those of another table.
        new = count_since(table, None)
        return f"{new:,}, none used by the champion", new
    started = manifest.build.started
    new = count_since(table, datetime.fromisoformat(started))
    return f"{new:,} since {started}", new


def _in_days(number: float) -> str:
    return f"{number:,.10g} day{'' if number == 1 else 's'}"


def _days(since: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(since)).total_seconds() / _DAY
