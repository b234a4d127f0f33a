"""A step reports how it ended, and its artifact is complete or absent, with digests."""

import subprocess
import sys
from pathlib import Path

import pytest

from grocer.artifacts.step import digest_of, reported, step
from grocer.errors import ArtifactError, GrocerError, OutputError
from grocer.events import EventFile
from grocer.io.atomic import file_digest, read_json


def test_record_has_digests_of_inputs_and_files(tmp_path: Path) -> None:
    with step("first", tmp_path / "a") as out:
        (out / "x.txt").write_text("x")
    with step("second", tmp_path / "b", {"a": tmp_path / "a"}) as out:
        (out / "deep").mkdir()
        (out / "deep/y.txt").write_text("y")
    record = read_json(tmp_path / "b/artifact.json")
    assert record["inputs"] == {"a": digest_of(tmp_path / "a")}
    assert record["files"] == {"deep/y.txt": file_digest(tmp_path / "b/deep/y.txt")}
    assert record["seconds"] >= 0
    assert record["peak_rss_mb"] > 1


def test_digest_depends_on_content_only(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "z")):
        with step("same", tmp_path / name) as out:
            (out / "x.txt").write_text(text)
    a, b, c = (digest_of(tmp_path / name) for name in "abc")
    assert a == b != c


def test_success_is_reported_after_the_artifact_is_complete(
    tmp_path: Path, events: EventFile
) -> None:
    with step("ingest", tmp_path / "a"):
        assert [event.event for event in events.read()] == ["started"]
    (event,) = events.read()
    assert (event.event, event.step) == ("succeeded", "ingest")
    assert event.seconds >= 0
    assert (tmp_path / "a/artifact.json").is_file()


def test_user_error_is_reported_in_one_line_and_leaves_no_artifact(
    tmp_path: Path, events: EventFile, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        with step("ingest", tmp_path / "a") as out:
            (out / "half").write_text("half")
            raise GrocerError("two\nlines")

    with pytest.raises(GrocerError):
        fail()
    assert capsys.readouterr().out == "grocer ! ingest | two lines\n"
    failed = events.read()[-1]
    assert (failed.event, failed.text, failed.user_error) == ("failed", "two lines", True)
    assert list(tmp_path.iterdir()) == []


def test_artifact_that_cannot_be_written_is_a_user_error(tmp_path: Path, events: EventFile) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OutputError), step("ingest", tmp_path / "a"):
        pass
    assert [(event.event, event.user_error) for event in events.read()] == [
        ("started", False),
        ("failed", True),
    ]


def test_internal_error_is_not_a_user_error(events: EventFile) -> None:
    with pytest.raises(ZeroDivisionError), reported("train"):
        raise ZeroDivisionError("by\nzero")
    failed = events.read()[-1]
    assert (failed.event, failed.user_error) == ("failed", False)
    assert failed.text == "ZeroDivisionError: by zero"


def test_killed_step_reports_only_its_start(events: EventFile) -> None:
    code = "import os; from grocer.artifacts.step import reported\n"
    code += "with reported('train'): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert [event.event for event in events.read()] == ["started"]


@pytest.mark.parametrize("record", [None, "[]"])
def test_directory_without_a_record_is_not_an_artifact(tmp_path: Path, record: str | None) -> None:
    if record is not None:
        (tmp_path / "artifact.json").write_text(record)
    with pytest.raises(ArtifactError, match=r"artifact\.json"):
        digest_of(tmp_path)
