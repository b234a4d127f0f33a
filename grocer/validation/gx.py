"""Great Expectations over frames: silent, in memory only, batch by batch, merged."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import pandas as pd

from grocer import progress as console
from grocer.validation.assets import BATCH_ROWS, Subject
from grocer.validation.suites import Expectation

Result = dict[str, Any]
Row = dict[str, Any]

# Kept of each result: counts add up over batches, and lists of rows would grow with the data.
_COUNTS = ("element_count", "missing_count", "unexpected_count")


class Checker:
    """One ephemeral context: no telemetry, no files, no progress bars."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self._gx = gx
        self.version = str(gx.__version__)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(
            globally=False, metric_calculations=False
        )
        self._source = context.data_sources.add_pandas("tables")
        self._definitions: dict[str, Any] = {}

    def check(self, subject: Subject) -> list[Result]:
        """One GX result for each expectation, in order, over all batches of the subject."""
        merged: list[Result] = []
        ticker = console.Ticker("validate", subject.rows, "order lines", every=5.0)
        done = 0
        for frame in subject.batches():
            results = self._validate(subject.name, frame, subject.expectations, "SUMMARY")
            merged = [*map(_merge, merged, results)] if merged else results
            done += len(frame)
            if subject.rows > BATCH_ROWS:
                ticker.at(done)
        return merged

    def offending(self, subject: Subject, expectation: Expectation, limit: int) -> list[Row]:
        """Up to `limit` rows that one expectation of single rows does not hold for."""
        rows: list[Row] = []
        for frame in subject.batches():
            [result] = self._validate(subject.name, frame, [expectation], "COMPLETE")
            index = result["result"].get("unexpected_index_list") or []
            rows += records(frame.loc[index[: limit - len(rows)]])
            if len(rows) >= limit:
                break
        return rows

    def _validate(
        self, name: str, frame: pd.DataFrame, expectations: Sequence[Expectation], detail: str
    ) -> list[Result]:
        if name not in self._definitions:
            asset = self._source.add_dataframe_asset(name)
            self._definitions[name] = asset.add_batch_definition_whole_dataframe("all")
        # As one suite: GX hashes the whole frame anew for each call. It reorders its results.
        suite = self._gx.ExpectationSuite(name, expectations=list(expectations))
        batch = self._definitions[name].get_batch({"dataframe": frame})
        results = {}
        for item in batch.validate(suite, result_format=detail).to_json_dict()["results"]:
            error = item["exception_info"].get("exception_message")
            assert error is None, f"{name}: {item['expectation_config']['notes']}: {error}"
            results[item["expectation_config"]["notes"]] = _plain(item)
        return [results[expectation.notes] for expectation in expectations]


def records(frame: pd.DataFrame) -> list[Row]:
    """A frame's rows as plain values, None where there is none."""
    rows = frame.to_dict("records")
    return [{str(key): _plain(value) for key, value in row.items()} for row in rows]


def _merge(a: Result, b: Result) -> Result:
    """Two batches' results of one expectation of single rows; its threshold is of them all."""
    counts = {key: a["result"].get(key, 0) + b["result"].get(key, 0) for key in _COUNTS}
    present = counts["element_count"] - counts["missing_count"]
    fitting = 1 - counts["unexpected_count"] / present if present else 1.0
    mostly = a["expectation_config"]["kwargs"].get("mostly", 1.0)
    values = [*_values(a), *_values(b)][:20]
    result = {
        **counts,
        "unexpected_percent": 100 * (1 - fitting),
        "partial_unexpected_list": values,
    }
    return {**a, "success": fitting >= mostly, "result": result}


def _values(result: Result) -> list[Any]:
    return list(result["result"].get("partial_unexpected_list", []))


def _plain(value: Any) -> Any:
    """The value with None for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value is pd.NA or value is pd.NaT else value
