"""Count rows with a duplicate key in little memory."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
from numpy.typing import NDArray

from grocer.ingest.duckdb_session import Database
from grocer.ingest.spark import Engine
from grocer.ingest.statements import statements

SLICE_ROWS = 4_000_000
SAMPLE_PERCENT = 1
_SQL = statements("duplicates")


def count_duplicates(database: Engine, table: str, key: Sequence[str]) -> int:
    """Return the number of rows beyond the first of each `key`, ignoring keys with a null.

    In DuckDB, sorting hashes slice by slice is six times faster than a GROUP BY of 33.8 million
    lines and takes a tenth of its memory. Slices are ranges of the key's first column, by which
    Instacart's files are sorted, so DuckDB reads only the row groups of a slice. Different keys may
    have equal hashes (in one of 30,000 tables of that size), so these are counted again exactly.
    """
    if not isinstance(database, Database):
        return database.number(_SQL.count_duplicates(table, key))
    rows = database.number(f"SELECT count(*) FROM {table}")
    slices = max(1, -(-rows // SLICE_ROWS))
    fractions = [step / slices for step in range(1, slices)]
    bounds = []
    if fractions:
        query = _SQL.quantiles(table, key[0], fractions, SAMPLE_PERCENT)
        bounds = sorted(set(database.run(query)[0][0] or []))
    equal: list[Future[int]] = []
    with ThreadPoolExecutor(1) as sorter:  # sorts one slice while the next is read
        for low, high in zip([None, *bounds], [*bounds, None], strict=True):
            query = _SQL.key_hashes(table, key, low, high)
            hashes = np.asarray(database.connection.execute(query).fetchnumpy()["hash"])
            wait(equal[-1:])  # at most two slices in memory
            equal.append(sorter.submit(_count_equal, hashes))
    if not any(count.result() for count in equal):
        return 0
    return database.number(_SQL.count_duplicates(table, key))


def _count_equal(hashes: NDArray[np.uint64]) -> int:
    """Sort in place and return how many values equal the one before."""
    hashes.sort()
    return int(np.count_nonzero(hashes[1:] == hashes[:-1]))
