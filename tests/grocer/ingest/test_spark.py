"""Spark writes the same tables and counts as DuckDB, but for the order of order lines."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.orders import generate
from grocer.artifacts.counts import Counts
from grocer.config.stages import DataConfig
from grocer.errors import ConfigError, OutputError, TableError
from grocer.ingest import spark
from tests.fixtures.ingest import assert_same_tables, ingest
from tests.fixtures.tables import LINES_HEADER, ORDERS_HEADER, tables, write_csvs

SPARK = DataConfig(engine="spark", memory_limit_mb=200)
CATALOGUE = Path(__file__).parents[3] / "examples" / "catalogue"


def assert_equal_output(source: Path, out: Path) -> Counts:
    """Ingest with both engines, compare all tables and counts, and return the counts."""
    out.mkdir(exist_ok=True)
    counts = ingest(source, out / "duckdb")
    assert ingest(source, out / "spark", SPARK) == counts
    assert_same_tables(out / "duckdb", out / "spark")
    return counts


@pytest.mark.spark
def test_small_tables_with_every_defect(tmp_path: Path) -> None:
    content = tables()
    content["order_products__prior"] += [
        [10, 999, 4, 0],  # unknown product
        [888, 1, 1, 0],  # unknown order
        ["", 1, 1, 0],
        ["", "", "", ""],
        [11, 1, 9, 0],  # duplicate line
    ]
    content["products"] += [[5, "Orphan", 77, 99], [1, "Duplicate Bananas", 1, 4]]
    content["orders"] += [[11, 9, "train", 9, 5, 5, 5], [2**40, 1, "te,st", 300, 1, "09", "3.5"]]
    counts = assert_equal_output(write_csvs(tmp_path / "in", content), tmp_path / "out")
    assert counts.order_lines.model_dump() == {
        "read": 12, "orphans": 4, "joined": 8, "with_nulls": 2, "kept": 6
    }  # fmt: skip
    assert counts.duplicates["orders"] == counts.duplicates["order_lines"] == 1


@pytest.mark.spark
def test_instacart_shape_at_a_small_scale(tmp_path: Path) -> None:
    generate(CATALOGUE, tmp_path / "in", 0.002)
    counts = assert_equal_output(tmp_path / "in", tmp_path / "out")
    assert counts.order_lines.read == round(32_434_489 * 0.002) + round(1_384_617 * 0.002)
    assert counts.order_lines.with_nulls == round(2_078_068 * 0.002)


@pytest.mark.spark
def test_lines_without_orders_and_parquet_with_nan(tmp_path: Path) -> None:
    folder, content = tmp_path / "in", tables()
    del content["orders"], content["order_products__train"]
    header, *rows = content.pop("order_products__prior")
    write_csvs(folder, content)
    frame = pd.DataFrame(rows, columns=header).astype("float64")
    frame.loc[0, "product_id"] = np.nan
    frame.to_parquet(folder / "order_products__prior.parquet")
    counts = assert_equal_output(folder, tmp_path / "out")
    assert counts.order_lines.orphans == 1


@pytest.mark.spark
def test_extra_columns_quotes_spaces_and_a_byte_order_mark(tmp_path: Path) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    (folder / "orders.csv").write_text(
        "\ufeffnote,other," + ",".join(ORDERS_HEADER) + "\r\n"
        '"x, ""y""",z,10, 1,"prior",1.0,2,08,\r\n'
        '\r\n,\\,11,1,prior,2,0,23,7.0\r\n,,12,1,"tr""ain",3,6,00,3e1\r\n',
        encoding="utf-8",
    )  # fmt: skip
    assert assert_equal_output(folder, tmp_path / "out").order_lines.kept == 5


SMALL, NULL_OR_SMALL = st.integers(1, 6), st.none() | st.integers(1, 6)


@pytest.mark.spark
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    orders=st.lists(st.tuples(SMALL, st.none() | st.integers(0, 30)), min_size=1, max_size=6),
    lines=st.lists(st.tuples(NULL_OR_SMALL, NULL_OR_SMALL, NULL_OR_SMALL), min_size=1, max_size=20),
)
def test_any_tables(
    tmp_path_factory: pytest.TempPathFactory,
    orders: list[tuple[int, int | None]],
    lines: list[tuple[int | None, int | None, int | None]],
) -> None:
    content = tables()
    content["orders"] = [ORDERS_HEADER, *([n, 1, "prior", 1, 0, 0, days] for n, days in orders)]
    content["order_products__prior"] = [LINES_HEADER, *([*line, 0] for line in lines)]
    folder = tmp_path_factory.mktemp("property")
    assert_equal_output(write_csvs(folder / "in", content), folder / "out")


@pytest.mark.spark
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("12,2,two,1", r"order_products__train.csv.*'add_to_cart_order'.*'two'.*whole number"),
        ("12,2,99999,1", r"'add_to_cart_order'.*'99999'"),
        ("12,2,1", r"expected 4 columns"),
        ("12,2,1,1,5", r"expected 4 columns"),
    ],
)
def test_invalid_row_is_reported(tmp_path: Path, row: str, message: str) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    with (folder / "order_products__train.csv").open("a") as file:
        file.write(f"{row}\n")
    with pytest.raises(TableError, match=message):
        ingest(folder, tmp_path / "out", SPARK)


@pytest.mark.spark
def test_executors_without_the_output_directory_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_csvs(tmp_path / "in", tables())
    elsewhere = tmp_path / "elsewhere"
    local = spark._uri
    monkeypatch.setattr(
        spark,
        "_uri",
        lambda path: local(elsewhere / path.name if ".scratch" in path.parts else path),
    )
    with pytest.raises(OutputError, match="mount the same volume"):
        ingest(folder, tmp_path / "out", SPARK)


def test_missing_extra_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    folder = write_csvs(tmp_path / "in", tables())
    with pytest.raises(ConfigError, match=r"requirements-spark\.lock"):
        ingest(folder, tmp_path / "out", SPARK)


def test_source_without_order_lines_needs_no_spark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    content = {name: tables()[name] for name in ("products", "departments")}
    assert ingest(write_csvs(tmp_path / "in", content), tmp_path / "out", SPARK).products == 4


NO_JAVA = """
from grocer.errors import ConfigError
from grocer.ingest.spark import spark_session
try:
    spark_session()
except ConfigError as error:
    print(error)
"""


@pytest.mark.spark
def test_missing_java_is_reported(tmp_path: Path) -> None:
    environment = {**os.environ, "JAVA_HOME": str(tmp_path)}
    command = [sys.executable, "-c", NO_JAVA]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert "install Java 17" in result.stdout


@pytest.mark.spark
@pytest.mark.parametrize("remote", ["sc://localhost:1", "sc://localhost:port"])
def test_unreachable_server_is_reported(remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_REMOTE", remote)
    with pytest.raises(ConfigError, match="SPARK_REMOTE"):
        spark.spark_session()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("java.lang.OutOfMemoryError: Java heap space", TableError, "spark.driver.memory"),
        ("Not enough memory to build and broadcast the table", TableError, "spark.driver.memory"),
        ("java.io.IOException: No space left on device", OutputError, "spark.local.dir"),
        ("unknown", RuntimeError, "unknown"),
    ],
)
def test_errors_of_spark_are_translated(text: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message), spark._user_errors("orders.csv"):
        raise RuntimeError(text)
