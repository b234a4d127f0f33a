"""The output directory: never half, never another's, and refused before anything costs time."""

import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from grocer.errors import OutputError
from pipelines.local.output_dir import rejection, swap_in, workplace


def refused(out, *, replace=False, keep=None):
    """The line that `workplace` refuses with; nothing may be left of it."""
    before = sorted(out.parent.rglob("*")) if out.parent.is_dir() else []
    with pytest.raises(OutputError) as error, workplace(out, replace=replace, keep=keep):
        pytest.fail("the run began")
    if out.parent.is_dir():
        assert sorted(out.parent.rglob("*")) == before
    return str(error.value)


def an_earlier_run(out: Path) -> Path:
    out.mkdir()
    (out / "summary.json").write_text("{}")
    return out


def test_the_work_is_hidden_and_gone_at_the_end(tmp_path):
    out = tmp_path / "deep" / "out"
    with workplace(out, replace=False) as work:
        assert work.parent == out.parent
        assert work.name.startswith(".")
        (work / "made").mkdir()
        (work / "made" / "x").write_text("new")
        swap_in(work / "made", out, work)
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "x").read_text() == "new"


def test_an_empty_directory_is_as_good_as_none(tmp_path):
    (tmp_path / "out").mkdir()
    with workplace(tmp_path / "out", replace=False):
        pass


def test_what_stood_there_is_back_when_the_swap_fails(tmp_path):
    out = an_earlier_run(tmp_path / "out")
    with pytest.raises(FileNotFoundError), workplace(out, replace=True) as work:
        swap_in(work / "absent", out, work)
    assert (out / "summary.json").is_file()


def test_an_earlier_run_is_replaced_only_when_asked(tmp_path):
    out = an_earlier_run(tmp_path / "out")
    assert "give --replace" in refused(out)
    with workplace(out, replace=True):
        assert (out / "summary.json").is_file()


def test_what_no_run_wrote_is_never_removed(tmp_path):
    out = an_earlier_run(tmp_path / "out")
    (out / "notes.txt").write_text("mine")
    assert "holds notes.txt, which no run of Grocer wrote" in refused(out, replace=True)
    (out / "summary.json").unlink()
    assert "is not empty and holds no run" in refused(out, replace=True)


def test_the_source_is_never_removed(tmp_path):
    out = an_earlier_run(tmp_path / "out")
    assert "which --replace would remove" in refused(out, replace=True, keep=out / "artifacts")


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "out").write_text("")
    assert "is a file, not a directory" in refused(tmp_path / "out")
    assert "a parent is a file" in refused(tmp_path / "out" / "below")
    assert "File name too long" in refused(tmp_path / ("x" * 300))


def test_a_read_only_directory_is_refused(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    # root may write anywhere, so what the system says of others is put in its mouth
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert "it is read-only" in refused(tmp_path / "out")


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 2**20, 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert "1 MiB are free there and a run needs 100 MiB" in refused(tmp_path / "out")


def test_two_runs_do_not_share_an_output(tmp_path):
    out = tmp_path / "out"
    with workplace(out, replace=False) as work:
        with (
            pytest.raises(OutputError, match="another run is at work"),
            workplace(out, replace=False),
        ):
            pass
        assert work.is_dir()


def test_what_a_killed_run_left_is_cleared(tmp_path):
    left = tmp_path / ".out.running" / "pipeline"
    left.mkdir(parents=True)
    (left.parent / "run.log").write_text("")
    with workplace(tmp_path / "out", replace=False) as work:
        assert list(work.iterdir()) == []


def test_only_an_earlier_rejection_makes_way(tmp_path):
    beside = tmp_path / "out.rejected"
    assert rejection(tmp_path / "out") == beside
    beside.mkdir()
    with pytest.raises(OutputError, match="is something else"):
        rejection(tmp_path / "out")
    (beside / "validation.html").write_text("")
    assert rejection(tmp_path / "out") == beside
