"""Output files and directories appear only when they are complete."""

import os
from pathlib import Path

import pytest

from grocer.errors import OutputError
from grocer.io.atomic import output_directory, output_file, read_json, write_json


def test_existing_directory_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/kept").write_text("kept")
    with pytest.raises(OutputError):
        output_directory(tmp_path / "a").__enter__()
    assert (tmp_path / "a/kept").read_text() == "kept"


def test_file_is_replaced_only_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def fail() -> None:
        with output_file(path) as part:
            part.write_text("{")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_file_is_on_the_disk_before_it_is_renamed_and_its_name_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(f"fsync {'directory' if os.path.isdir(descriptor) else 'file'}")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    write_json(tmp_path / "x.json", {})
    assert calls == ["fsync file", "rename", "fsync directory"]


@pytest.mark.parametrize("name", ["folder", "x" * 250])
def test_name_that_no_file_can_have_is_a_user_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        write_json(tmp_path / name, {})
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="not a regular file"):
        write_json(tmp_path / "pipe", {})
    assert (tmp_path / "pipe").is_fifo()


def test_json_with_nan_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("umask", "modes"), [(0o022, (0o644, 0o755)), (0o077, (0o600, 0o700))])
def test_outputs_have_the_permissions_of_the_umask(
    tmp_path: Path, umask: int, modes: tuple[int, int]
) -> None:
    previous = os.umask(umask)
    try:
        write_json(tmp_path / "x.json", {})
        with output_directory(tmp_path / "folder"):
            pass
    finally:
        os.umask(previous)
    paths = tmp_path / "x.json", tmp_path / "folder"
    assert tuple(path.stat().st_mode & 0o777 for path in paths) == modes
