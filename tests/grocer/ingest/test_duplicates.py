"""Protects the count of repeated keys: exact, however the table is sliced and sorted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grocer.config.stages import DataConfig
from grocer.ingest import duplicates as repeats
from grocer.ingest.duckdb_session import Database

KEY = st.none() | st.integers(-5, 30) | st.just(2**62)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(KEY, KEY), min_size=1, max_size=60))
def test_repeats_are_rows_beyond_the_first_of_each_key(
    rows: list[tuple[int | None, int | None]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repeats, "SLICE", 7)
    monkeypatch.setattr(repeats, "SAMPLE_PERCENT", 100)
    scratch: Path = tmp_path_factory.mktemp("repeats")
    with Database(scratch, DataConfig(memory_limit_mb=200)) as database:
        database.run("CREATE TABLE t (a BIGINT, b BIGINT)")
        database.connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        found = repeats.repeats(database, "t", ("a", "b"))
    whole = [row for row in rows if None not in row]
    assert found == len(whole) - len(set(whole))
