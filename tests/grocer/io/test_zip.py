"""Zip archives: only tables are unpacked, and no more than their declared sizes."""

import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from grocer.errors import SourceError
from grocer.io import zip as archives


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of 10 million spaces, about a thousandth of which is left."""
    path = tmp_path / "tables.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("orders.csv", b" " * 10_000_000)
        members.writestr("large.bin", b" " * 30_000_000)
    return path


def test_archive_that_expands_too_much_is_not_unpacked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (table,) = archives.unpack(archive, tmp_path / "small")
    assert table.stat().st_size == 10_000_000
    monkeypatch.setattr(archives, "_SMALL_BYTES", 1_000_000)
    with pytest.raises(SourceError, match="10,000,000 bytes"):
        archives.unpack(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_archive_larger_than_the_disk_is_not_unpacked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(SourceError, match="which has 1,000"):
        archives.unpack(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_more_data_than_declared_is_an_error(archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    size = (10_000_000).to_bytes(4, "little")
    assert data.count(size) == 2
    archive.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
    with pytest.raises(SourceError, match="not a complete zip"):
        archives.unpack(archive, tmp_path / "out")
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 1000
