"""The count of duplicate keys is exact for any slicing of the table."""

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grocer.config.stages import DataConfig
from grocer.ingest import duplicates
from grocer.ingest.duckdb_session import Database

KEY = st.none() | st.integers(-5, 30) | st.just(2**62)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(KEY, KEY), min_size=1, max_size=60))
def test_counts_rows_beyond_the_first_of_each_key(
    rows: list[tuple[int | None, int | None]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(duplicates, "SLICE_ROWS", 7)
    monkeypatch.setattr(duplicates, "SAMPLE_PERCENT", 100)
    scratch: Path = tmp_path_factory.mktemp("duplicates")
    with closing(Database(scratch, DataConfig(memory_limit_mb=200))) as database:
        database.run("CREATE TABLE t (a BIGINT, b BIGINT)")
        database.connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        count = duplicates.count_duplicates(database, "t", ("a", "b"))
    keys = [row for row in rows if None not in row]
    assert count == len(keys) - len(set(keys))
