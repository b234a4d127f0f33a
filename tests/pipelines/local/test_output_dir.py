"""An output directory is complete or absent, and no file of someone else is removed."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from grocer.errors import OutputError
from pipelines.local.output_dir import rejected_dir, swap_in, working_dir


def error_of(out, *, replace=False, keep=None):
    """Return the error message of `working_dir`, which must change nothing."""
    before = sorted(out.parent.rglob("*")) if out.parent.is_dir() else []
    with pytest.raises(OutputError) as error, working_dir(out, replace=replace, keep=keep):
        pytest.fail("the run started")
    if out.parent.is_dir():
        assert sorted(out.parent.rglob("*")) == before
    return str(error.value)


def earlier_run(out: Path) -> Path:
    out.mkdir()
    (out / "summary.json").write_text("{}")
    return out


def test_working_directory_is_hidden_and_removed(tmp_path):
    out = tmp_path / "deep" / "out"
    with working_dir(out, replace=False) as work:
        assert work.parent == out.parent
        assert work.name.startswith(".")
        (work / "new").mkdir()
        (work / "new" / "x").write_text("new")
        swap_in(work / "new", out)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "x").read_text() == "new"


def test_empty_directory_is_accepted(tmp_path):
    (tmp_path / "out").mkdir()
    with working_dir(tmp_path / "out", replace=False):
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


def test_previous_output_is_restored_if_the_swap_fails(tmp_path):
    out = earlier_run(tmp_path / "out")
    with pytest.raises(FileNotFoundError), working_dir(out, replace=True) as work:
        swap_in(work / "absent", out)
    assert (out / "summary.json").is_file()


KILLED_SWAP = """
import os, shutil, signal, sys
from pathlib import Path
from pipelines.local.output_dir import swap_in

calls = []

def killed(function):
    def call(*arguments, **options):
        calls.append(function)
        if len(calls) > int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call

os.rename, shutil.rmtree = killed(os.rename), killed(shutil.rmtree)
work = Path(sys.argv[2]) / ".out.running"
(work / "new").mkdir(parents=True)
(work / "new" / "summary.json").write_text('"new"')
swap_in(work / "new", Path(sys.argv[2]) / "out")
"""


@pytest.mark.parametrize(("calls", "content"), [(0, "{}"), (1, "{}"), (2, '"new"'), (3, '"new"')])
def test_kill_during_the_swap_keeps_one_run(tmp_path, calls, content):
    """The process is killed after this number of renamed and removed directories."""
    out = earlier_run(tmp_path / "out")
    command = [sys.executable, "-c", KILLED_SWAP, str(calls), str(tmp_path)]
    ended = subprocess.run(command, check=False)
    assert ended.returncode == (0 if calls == 3 else -signal.SIGKILL)
    with pytest.raises(OutputError, match="--replace"), working_dir(out, replace=False):
        pytest.fail("the run started")
    assert (out / "summary.json").read_text() == content
    with working_dir(out, replace=True):
        pass
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "summary.json").read_text() == content


def test_earlier_run_is_overwritten_only_with_replace(tmp_path):
    out = earlier_run(tmp_path / "out")
    assert "--replace" in error_of(out)
    with working_dir(out, replace=True):
        assert (out / "summary.json").is_file()


def test_files_of_someone_else_are_never_removed(tmp_path):
    out = earlier_run(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    assert "notes.txt" in error_of(out, replace=True)
    (out / "summary.json").unlink()
    assert "not empty" in error_of(out, replace=True)


def test_source_data_is_never_removed(tmp_path):
    out = earlier_run(tmp_path / "out")
    assert "remove --data" in error_of(out, replace=True, keep={"--data": str(out / "artifacts")})


def test_path_that_is_not_a_directory_is_rejected(tmp_path):
    (tmp_path / "out").write_text("")
    assert "not a directory" in error_of(tmp_path / "out")
    assert "not a directory" in error_of(tmp_path / "out" / "below")
    assert "its name is too long" in error_of(tmp_path / ("x" * 300))


def test_long_name_is_rejected(tmp_path):
    assert "its name is too long" in error_of(tmp_path / ("x" * 240))


def test_read_only_directory_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    assert "read-only" in error_of(tmp_path / "out")


def test_full_disk_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Mock(free=2**20))
    message = error_of(tmp_path / "out")
    assert "1 MiB free" in message
    assert "100 MiB" in message


def test_two_runs_cannot_share_an_output(tmp_path):
    out = tmp_path / "out"
    with working_dir(out, replace=False) as work:
        with (
            pytest.raises(OutputError, match="in use by another run"),
            working_dir(out, replace=False),
        ):
            pass
        assert work.is_dir()


def test_files_of_a_killed_run_are_removed(tmp_path):
    left = tmp_path / ".out.running" / "pipeline"
    left.mkdir(parents=True)
    (left.parent / "run.log").write_text("")
    with working_dir(tmp_path / "out", replace=False) as work:
        assert list(work.iterdir()) == []


def test_rejected_directory_replaces_only_an_earlier_one(tmp_path):
    rejected = tmp_path / "out.rejected"
    assert rejected_dir(tmp_path / "out") == rejected
    rejected.mkdir()
    with pytest.raises(OutputError, match=r"out\.rejected"):
        rejected_dir(tmp_path / "out")
    (rejected / "validation.html").write_text("")
    assert rejected_dir(tmp_path / "out") == rejected
