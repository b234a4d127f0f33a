"""SQL templates quote names and texts from users."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest
from jinja2 import UndefinedError

from grocer.config.stages import ColumnMapping, DataConfig
from grocer.ingest.statements import identifier, literal, statements
from tests.fixtures.ingest import ingest, read
from tests.fixtures.tables import write_csvs


@pytest.mark.parametrize("text", ["plain", "it's", "'; DROP TABLE t; --", 'a "b"', "\\'", ""])
def test_literals_and_identifiers_round_trip(text: str) -> None:
    name = text or "empty"
    with duckdb.connect() as connection:
        cursor = connection.execute(f"SELECT {literal(text)} AS {identifier(name)}")
        assert cursor.fetchall() == [(text,)]
        assert cursor.description[0][0] == name


def test_columns_and_folders_with_quotes_are_read(tmp_path: Path) -> None:
    header = ['it\'s "the" name', "dept', 'x", "sku", "SKU"]
    folder = write_csvs(tmp_path / "it's", {"export": [header, ["Milk", "dairy", "", "1"]]})
    columns = ColumnMapping(product_name=header[0], department=header[1])
    ingest(folder, tmp_path / "out", DataConfig(columns=columns))
    assert read(tmp_path / "out", "products")["product_name"].tolist() == ["Milk"]


@pytest.mark.parametrize("name", ["a[1]", "a*", "?1", "[!b]1", "~a"])
@pytest.mark.parametrize("format", [".csv", ".parquet"])
def test_only_the_file_of_this_name_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for each in ("a1", name):
        table = pd.DataFrame({"product_name": [each], "department": ["dairy"]})
        if format == ".csv":
            table.to_csv(f"{each}.csv", index=False)
        else:
            table.to_parquet(f"{each}.parquet")
    ingest(f"{name}{format}", tmp_path / "out", DataConfig(columns=ColumnMapping()))
    assert read(tmp_path / "out", "products")["product_name"].tolist() == [name]


def test_missing_argument_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        statements("duckdb_session").create_table("t")
