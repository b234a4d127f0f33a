"""Typed artifacts are validated when read, and an invalid one is reported in one line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.base import Artifact, BySide
from grocer.artifacts.counts import Counts
from grocer.artifacts.splits import Splits
from grocer.artifacts.step import digest_of, step
from grocer.errors import ArtifactError
from tests.fixtures.stage_artifacts import (
    ADAPTER,
    COUNTS,
    DECISION,
    SPLITS,
    VALIDATION_REPORT,
    content,
)


@pytest.mark.parametrize("artifact", [ADAPTER, COUNTS, DECISION, SPLITS, VALIDATION_REPORT])
def test_artifact_is_read_as_written(artifact: Artifact, tmp_path: Path) -> None:
    with step("any", tmp_path / "out") as out:
        artifact.write(out)
    restored = type(artifact).read(tmp_path / "out")
    assert restored.model_dump() == artifact.model_dump()
    written = json.loads((tmp_path / "out" / artifact.FILE).read_text())
    assert written["schema"] == artifact.schema_version
    assert restored.directory == tmp_path / "out"
    assert restored.digest == digest_of(tmp_path / "out")


@pytest.mark.parametrize("version", [None, 2, True, "1", 1.5])
def test_other_schema_version_is_rejected(version: object, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_text(content(COUNTS, schema=version))
    message = rf"counts\.json: .*schema: .*(version {version}, but|\(found {version!r}\))"
    with pytest.raises(ArtifactError, match=message):
        Counts.read(tmp_path)


def test_missing_schema_version_is_rejected(tmp_path: Path) -> None:
    values = COUNTS.model_dump(mode="json")
    del values["schema"]
    with pytest.raises(ArtifactError, match="schema: Field required"):
        Counts.parse(json.dumps(values), "counts.json")


@pytest.mark.parametrize("text", ["{", "[]", "", "\udcff"])
def test_text_that_is_not_an_artifact_is_rejected(text: str, tmp_path: Path) -> None:
    (tmp_path / "counts.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(
        ArtifactError, match=r"counts\.json: .*(Invalid JSON|should be an object|codepoint)"
    ) as caught:
        Counts.read(tmp_path)
    (problem,) = caught.value.problems
    assert problem.startswith(("Invalid JSON", "Input should be an object", "invalid unicode"))
    assert "(found" not in problem


def test_sides_are_iterated_in_order() -> None:
    sides = BySide(train=1, validation=2, test=3)
    assert list(sides) == [("train", 1), ("validation", 2), ("test", 3)]


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"split\.json: file not found"):
        Splits.read(tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"products": -1}, r"products: .*greater than or equal to 0 \(found -1\)$"),
        ({"products": -1, "aisles": -1}, r"products: .*\(found -1\) \(and 1 more\)$"),
        ({"products": True}, "products: .*integer"),
        ({"products": "7"}, "products: .*integer"),
        ({"products": 1.5}, "products: .*integer"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"nulls": {"user_id": None}}, r"nulls\.user_id: .*\(found None\)"),
        ({"orphans": {}}, r"orphans\.products_without_department: Field required \(and 3 more\)"),
    ],
)
def test_invalid_value_is_named_in_one_line(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(
        ArtifactError, match=rf"^c: not a valid Counts of schema version 1: {problem}"
    ) as got:
        Counts.parse(content(COUNTS, **changes), "c")
    assert "\n" not in str(got.value)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_is_rejected(seconds: float) -> None:
    with pytest.raises(ArtifactError, match=r"seconds: .*\(found (nan|-?inf)\)"):
        Adapter.parse(content(ADAPTER, seconds=seconds), "a")


def test_artifact_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        COUNTS.products = 1
