"""Protects the sources on this machine: folders, zips and zips in zips, CSV and Parquet."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pandas as pd
import pytest

from grocer.errors import SourceError
from grocer.ingest.run import ingest
from grocer.ingest.source import open_source
from tests.fixtures.ingest import CONFIG
from tests.fixtures.tables import tables, write_csvs


def zip_files(target: Path, files: list[Path], folder: str = "") -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, f"{folder}{path.name}")
    return target


@pytest.fixture
def csvs(tmp_path: Path) -> list[Path]:
    return sorted(write_csvs(tmp_path / "csvs", tables()).iterdir())


def kept(source: Path, tmp_path: Path) -> int:
    out = tmp_path / "out"
    out.mkdir()
    return int(ingest(str(source), CONFIG, out)["order_lines"]["kept"])


def test_a_zip_with_a_folder_and_what_macos_adds(tmp_path: Path, csvs: list[Path]) -> None:
    source = zip_files(tmp_path / "all.zip", csvs, "instacart_2017_05_01/")
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("__MACOSX/instacart_2017_05_01/._orders.csv", b"\0\5")
        archive.writestr("readme.txt", b"hello")
    assert kept(source, tmp_path) == 5


def test_kaggles_zip_of_zips(tmp_path: Path, csvs: list[Path]) -> None:
    nested = [zip_files(tmp_path / f"{path.name}.zip", [path]) for path in csvs]
    assert kept(zip_files(tmp_path / "kaggle.zip", nested), tmp_path) == 5


def test_a_folder_of_zips(tmp_path: Path, csvs: list[Path]) -> None:
    folder = tmp_path / "zips"
    folder.mkdir()
    for path in csvs:
        zip_files(folder / f"{path.name}.zip", [path])
    assert kept(folder, tmp_path) == 5


def test_parquet_with_nulls_as_pandas_writes_them(tmp_path: Path, csvs: list[Path]) -> None:
    folder = tmp_path / "parquet"
    folder.mkdir()
    for path in csvs:
        pd.read_csv(path).to_parquet(folder / f"{path.stem}.parquet")
    assert kept(folder, tmp_path) == 5


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.99])
def test_a_zip_cut_short(tmp_path: Path, csvs: list[Path], keep: float) -> None:
    source = zip_files(tmp_path / "all.zip", csvs)
    content = source.read_bytes()
    source.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(SourceError, match=r"all.zip is not a whole zip"):
        kept(source, tmp_path)


def test_a_damaged_zip(tmp_path: Path, csvs: list[Path]) -> None:
    source = zip_files(tmp_path / "all.zip", csvs)
    content = bytearray(source.read_bytes())
    at = content.index(b"products.csv") + 30
    content[at : at + 20] = bytes(20)
    source.write_bytes(content)
    with pytest.raises(SourceError, match=r"all.zip is not a whole zip"):
        kept(source, tmp_path)


def test_a_file_twice_in_a_zip(tmp_path: Path, csvs: list[Path]) -> None:
    source = zip_files(tmp_path / "all.zip", csvs)
    with zipfile.ZipFile(source, "a") as archive:
        archive.write(csvs[0], f"old/{csvs[0].name}")
    with pytest.raises(SourceError, match=r"all.zip holds aisles.csv twice"):
        kept(source, tmp_path)


@pytest.mark.parametrize(
    ("offsets", "value", "said"),
    [((6, 8), 1, "is encrypted, password required"), ((8, 10), 99, "compression method")],
)
def test_a_zip_that_cant_be_opened_says_why(
    tmp_path: Path, csvs: list[Path], offsets: tuple[int, int], value: int, said: str
) -> None:
    """As its headers say, once before the file and once in the list at the end."""
    source = zip_files(tmp_path / "all.zip", csvs[:1])
    content = bytearray(source.read_bytes())
    for mark, offset in zip((b"PK\3\4", b"PK\1\2"), offsets, strict=True):
        content[content.index(mark) + offset] = value
    source.write_bytes(content)
    with pytest.raises(SourceError, match=rf"all\.zip can't be unpacked: .*{said}"):
        kept(source, tmp_path)


def test_something_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match=r"expected a folder, a .zip"):
        kept(tmp_path / "notes.txt", tmp_path)


def test_own_catalogue_has_to_be_one_file(tmp_path: Path, csvs: list[Path]) -> None:
    with (
        pytest.raises(SourceError, match=r"one \.csv or \.parquet is expected"),
        open_source(str(csvs[0].parent), tmp_path / "scratch", own=True),
    ):
        pass
