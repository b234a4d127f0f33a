"""Protects what a step leaves: whole or nothing, with digests of what it read and made."""

from __future__ import annotations

from pathlib import Path

import pytest

from grocer.artifacts.step import digest_of, step
from grocer.errors import GrocerError, OutputError
from grocer.io.atomic import file_digest, output_directory, output_file, read_json, write_json


def test_an_artifact_carries_digests_of_what_it_read_and_made(tmp_path: Path) -> None:
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


def test_the_digest_is_of_the_content_alone(tmp_path: Path) -> None:
    for name, text in (("a", "x"), ("b", "x"), ("c", "z")):
        with step("same", tmp_path / name) as out:
            (out / "x.txt").write_text(text)
    a, b, c = (digest_of(tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_mistake_is_said_once_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def mistaken() -> None:
        with step("ingest", tmp_path / "a") as out:
            (out / "half").write_text("half")
            raise GrocerError("two\nlines")

    with pytest.raises(GrocerError):
        mistaken()
    assert capsys.readouterr().out == "grocer ! ingest | two lines\n"
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/kept").write_text("kept")
    with pytest.raises(OutputError, match="already exists"):
        output_directory(tmp_path / "a").__enter__()
    assert (tmp_path / "a/kept").read_text() == "kept"


def test_a_file_is_the_old_one_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})

    def broken() -> None:
        with output_file(path) as part:
            part.write_text("{")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_what_no_step_wrote_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"has no artifact\.json"):
        digest_of(tmp_path)
