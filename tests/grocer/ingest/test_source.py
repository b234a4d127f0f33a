"""Sources on this machine: folders, zip archives and nested archives, CSV and Parquet."""

import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from grocer.errors import SourceError
from grocer.ingest.source import download, open_source
from tests.fixtures.ingest import ingest
from tests.fixtures.tables import tables, write_csvs


def zip_files(target: Path, files: list[Path], folder: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, f"{folder}{path.name}")
    return target


@pytest.fixture
def csvs(tmp_path: Path) -> list[Path]:
    return sorted(write_csvs(tmp_path / "csvs", tables()).iterdir())


def kept_lines(data: Path, tmp_path: Path) -> int:
    return ingest(data, tmp_path / "out").order_lines.kept


def test_zip_with_a_folder_and_macos_metadata(tmp_path: Path, csvs: list[Path]) -> None:
    source = zip_files(tmp_path / "all.zip", csvs, "instacart_2017_05_01/")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("__MACOSX/instacart_2017_05_01/._orders.csv", b"\0\5")
        archive.writestr("readme.txt", b"hello")
    assert kept_lines(source, tmp_path) == 5


def test_zip_of_zips_as_from_kaggle(tmp_path: Path, csvs: list[Path]) -> None:
    nested = [zip_files(tmp_path / f"{path.name}.zip", [path]) for path in csvs]
    assert kept_lines(zip_files(tmp_path / "kaggle.zip", nested), tmp_path) == 5


def test_folder_of_zips(tmp_path: Path, csvs: list[Path]) -> None:
    folder = tmp_path / "zips"
    folder.mkdir()
    for path in csvs:
        zip_files(folder / f"{path.name}.zip", [path])
    assert kept_lines(folder, tmp_path) == 5


def test_parquet_with_nan_as_pandas_writes_nulls(tmp_path: Path, csvs: list[Path]) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for path in csvs:
        pd.read_csv(path).to_parquet(folder / f"{path.stem}.parquet")
    assert kept_lines(folder, tmp_path) == 5


@pytest.mark.parametrize(("keep", "damaged"), [(0.3, 0), (0.9, 0), (0.99, 0), (1.0, 20)])
def test_truncated_or_damaged_zip_is_rejected(
    tmp_path: Path, csvs: list[Path], keep: float, damaged: int
) -> None:
    source = zip_files(tmp_path / "all.zip", csvs)
    content = bytearray(source.read_bytes())
    at = content.index(b"products.csv") + 30
    content[at : at + damaged] = bytes(damaged)
    source.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SourceError, match=r"all.zip: not a complete zip"):
        kept_lines(source, tmp_path)


def test_duplicate_file_in_a_zip_is_rejected(tmp_path: Path, csvs: list[Path]) -> None:
    source = zip_files(tmp_path / "all.zip", csvs)
    with zipfile.ZipFile(source, "a") as archive:
        archive.write(csvs[0], f"old/{csvs[0].name}")
    with pytest.raises(SourceError, match=r"all.zip: two files named aisles.csv"):
        kept_lines(source, tmp_path)


@pytest.mark.parametrize(
    ("offsets", "value", "reason"),
    [((6, 8), 1, "is encrypted, password required"), ((8, 10), 99, "compression method")],
)
def test_unsupported_zip_is_rejected_with_the_reason(
    tmp_path: Path, csvs: list[Path], offsets: tuple[int, int], value: int, reason: str
) -> None:
    """Change the local file header and the central directory."""
    source = zip_files(tmp_path / "all.zip", csvs[:1])
    content = bytearray(source.read_bytes())
    for signature, offset in zip((b"PK\3\4", b"PK\1\2"), offsets, strict=True):
        content[content.index(signature) + offset] = value
    source.write_bytes(content)
    with pytest.raises(SourceError, match=rf"all\.zip: cannot unpack: .*{reason}"):
        kept_lines(source, tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "pipe.csv"])
def test_other_file_type_is_rejected(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(SourceError, match=r"whose name ends with .csv"):
        kept_lines(tmp_path / name, tmp_path)


def test_single_table_must_be_one_file(tmp_path: Path, csvs: list[Path]) -> None:
    with (
        pytest.raises(SourceError, match=r"expected a single \.csv or \.parquet"),
        open_source(str(csvs[0].parent), tmp_path / "scratch", single=True),
    ):
        pass


def test_unknown_protocol_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="unknown protocol"):
        download("ftp://127.0.0.1/all.zip", tmp_path / "downloads")


def test_single_table_on_a_web_server_needs_the_address_of_the_file(tmp_path: Path) -> None:
    """Web servers don't list folders."""
    with pytest.raises(SourceError, match="shop: give the address of the file itself"):
        download("https://127.0.0.1:9/shop", tmp_path / "downloads", single=True)
