"""Run Great Expectations in memory, batch by batch, and merge the results."""

import math
import os
from collections.abc import Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import ProgressBarsConfig

from grocer import progress
from grocer.validation.assets import BATCH_ROWS, Asset
from grocer.validation.suites import Expectation

Result = dict[str, Any]
Row = dict[str, Any]

# Summed over batches. Lists of rows are not merged, as they would grow with the data.
_COUNTS = ("element_count", "missing_count", "unexpected_count")


class Checker:
    """An ephemeral Great Expectations context without telemetry, files or progress bars."""

    def __init__(self) -> None:
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        self.version = str(gx.__version__)
        context = gx.get_context(mode="ephemeral")
        silent = ProgressBarsConfig(globally=False, metric_calculations=False)
        context.variables.progress_bars = silent
        self._sources = context.data_sources
        self._source = self._sources.add_pandas("tables")
        self._definitions: dict[str, Any] = {}

    def check(self, asset: Asset) -> list[Result]:
        """Return one result for each expectation, in order, over all batches of the asset."""
        if asset.spark is not None:
            source = self._sources.add_spark("spark", persist=False).add_dataframe_asset(asset.name)
            batches = source.add_batch_definition_whole_dataframe("all")
            return _validate(batches, asset.spark(), asset.expectations, "SUMMARY")
        merged: list[Result] = []
        ticker = progress.Ticker("validate", asset.rows, "rows", every=5.0)
        done = 0
        for frame in asset.batches():
            results = self._validate(asset.name, frame, asset.expectations, "SUMMARY")
            merged = [*map(_merge, merged, results)] if merged else results
            done += len(frame)
            if asset.rows > BATCH_ROWS:
                ticker.at(done)
        return merged

    def violations(self, asset: Asset, expectation: Expectation, limit: int) -> list[Row]:
        """Return up to `limit` rows that violate an expectation of single rows."""
        rows: list[Row] = []
        for frame in asset.batches():
            [result] = self._validate(asset.name, frame, [expectation], "COMPLETE")
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
        return _validate(self._definitions[name], frame, expectations, detail)


def _validate(
    definition: Any, frame: Any, expectations: Sequence[Expectation], detail: str
) -> list[Result]:
    """Return the results of a pandas or Spark data frame, in the order of the expectations."""
    name = definition.data_asset.name
    # One suite for all: GX hashes the whole frame on each call. It reorders the results.
    suite = gx.ExpectationSuite(name, expectations=list(expectations))
    batch = definition.get_batch({"dataframe": frame})
    # GX filters the whole frame for each metric: without nulls, that is then not a copy.
    with pd.option_context("mode.copy_on_write", True):
        report = batch.validate(suite, result_format=detail)
    results = {}
    for item in report.to_json_dict()["results"]:
        notes = item["expectation_config"]["notes"]
        if error := item["exception_info"].get("exception_message"):
            raise RuntimeError(f"{name}: {notes}: {error}")
        results[notes] = _to_json(item)
    return [results[expectation.notes] for expectation in expectations]


def records(frame: pd.DataFrame) -> list[Row]:
    """Return a frame's rows as JSON values, None for a null."""
    rows = frame.to_dict("records")
    return [{str(key): _to_json(value) for key, value in row.items()} for row in rows]


def _merge(a: Result, b: Result) -> Result:
    """Merge two batches' results; `mostly` applies to the sum."""
    counts = {key: a["result"].get(key, 0) + b["result"].get(key, 0) for key in _COUNTS}
    present = counts["element_count"] - counts["missing_count"]
    valid = 1 - counts["unexpected_count"] / present if present else 1.0
    values = [value for x in (a, b) for value in x["result"].get("partial_unexpected_list", [])]
    mostly = a["expectation_config"]["kwargs"].get("mostly", 1.0)
    result = {
        **counts,
        "unexpected_percent": 100 * (1 - valid),
        "partial_unexpected_list": values[:20],
    }
    return {**a, "success": valid >= mostly, "result": result}


def _to_json(value: Any) -> Any:
    """Replace NaN and pandas' nulls, which JSON lacks, with None."""
    if isinstance(value, dict):
        return {key: _to_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return None if value is pd.NA or value is pd.NaT else value
