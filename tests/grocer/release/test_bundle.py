"""A bundle is named by its bytes and refuses to serve what was not measured and passed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from grocer.artifacts.step import digest_of
from grocer.config.recipes import tiny
from grocer.errors import BundleError
from grocer.io.atomic import file_digest, read_json, tree_digest, tree_digests
from grocer.release.bundle import load_bundle, write_bundle
from tests.fixtures.artifacts import (
    AISLES,
    make_bundle,
    write_artifacts,
    write_decision,
    write_model,
)


def rename_to_digest(path: Path) -> Path:
    """What someone would do who changes a bundle and knows how its name comes about."""
    manifest = read_json(path / "bundle.json")
    files = tree_digests(path)
    manifest["files"] = {name: digest for name, digest in files.items() if name != "bundle.json"}
    (path / "bundle.json").write_text(json.dumps(manifest))
    return path.rename(path.with_name(tree_digest(tree_digests(path))))


def test_a_bundle_is_whole_and_named_by_its_digest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert bundle.path == tmp_path / bundle.digest
    assert bundle.digest == tree_digest(tree_digests(bundle.path))
    assert sorted(path.name for path in bundle.path.iterdir()) == [
        "MODEL_CARD.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "bundle.json",
        "labels.json",
        "template.json",
        "tokenizer.json",
    ]
    manifest = read_json(bundle.path / "bundle.json")
    assert manifest["calibration"] == {"temperature": 1.25}
    assert manifest["config"]["recipe"] == "tiny"
    assert all(file_digest(bundle.path / n) == d for n, d in manifest["files"].items())


def test_a_bundle_of_two_levels_holds_its_aisles_and_both_temperatures(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, tiny().with_settings(["catalogue.levels=2"]))
    assert read_json(bundle.path / "aisles.json") == AISLES
    assert bundle.leaves == (
        ("dairy eggs", "milk"),
        ("dairy eggs", "yogurt"),
        ("produce", "fresh fruits"),
        ("produce", "fresh herbs"),
    )
    calibration = read_json(bundle.path / "bundle.json")["calibration"]
    assert calibration == {"temperature": 1.25, "aisle_temperature": 1.5}
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert "an aisle within the department too, 4 of them" in card
    assert "70.0 % (67.0 % to 73.0 %) get the right one" in card


@pytest.mark.parametrize("text", [None, '{"produce": ["fresh herbs", "fresh fruits"]}'])
def test_aisles_exchanged_with_every_digest_made_anew_are_refused(
    tmp_path: Path, text: str | None
) -> None:
    """Their order says what a column means."""
    path = make_bundle(tmp_path, tiny().with_settings(["catalogue.levels=2"])).path
    (path / "aisles.json").unlink()
    if text is not None:
        (path / "aisles.json").write_text(text)
    with pytest.raises(BundleError, match=r"aisles\.json is not the one that was evaluated"):
        load_bundle(rename_to_digest(path))


def test_aisles_put_into_a_bundle_of_one_level_are_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path
    (path / "aisles.json").write_text('{"produce": ["fruit"]}')
    with pytest.raises(BundleError, match=r"aisles\.json is not the one that was evaluated"):
        load_bundle(rename_to_digest(path))


def test_no_product_name_is_in_a_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert "Secret Sauce" not in (bundle.path / "bundle.json").read_text()


def test_the_card_tells_the_measures_the_reasons_and_the_limits(tmp_path: Path) -> None:
    card = (make_bundle(tmp_path).path / "MODEL_CARD.md").read_text()
    assert "| test | 300 | 90.0 % | 87.0 % to 93.0 % |" in card
    assert "test accuracy's lower bound 0.870 is at least 0.85" in card
    assert "## Limits" in card
    assert "{{" not in card


def test_the_same_again_is_the_same_bundle(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    first = write_bundle(**artifacts, config=tiny(), root=tmp_path)
    assert write_bundle(**artifacts, config=tiny(), root=tmp_path).digest == first.digest


def test_a_no_is_not_bundled_and_says_why(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts", passed=False)
    with pytest.raises(BundleError, match=r"the gate said no.*0\.870 is below 0\.95"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("name", ["model", "splits", "evaluation"])
def test_a_decision_about_something_else_is_refused(tmp_path: Path, name: str) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    digests = {key: digest_of(artifacts[key]) for key in ("model", "splits", "evaluation")}
    artifacts["decision"] = write_decision(tmp_path / "other", digests | {name: "f" * 64})
    with pytest.raises(BundleError, match=f"another {name}: it names ffffffffffff"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")


def test_an_adapter_that_was_not_evaluated_is_refused(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    artifacts["model"] = write_model(tmp_path / "other", tiny(), b"other weights")
    with pytest.raises(BundleError, match="about another model"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "labels.json", "bundle.json", "MODEL_CARD.md"]
)
def test_one_changed_byte_is_refused(tmp_path: Path, name: str) -> None:
    path = make_bundle(tmp_path).path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match="was touched"):
        load_bundle(path.parent)


def test_a_file_removed_or_added_is_refused_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "extra.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"extra\.bin was added"):
        load_bundle(bundle.path)
    (bundle.path / "extra.bin").unlink()
    (bundle.path / "labels.json").unlink()
    with pytest.raises(BundleError, match=r"labels\.json is missing"):
        load_bundle(bundle.path)


def test_weights_exchanged_with_every_digest_made_anew_are_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path
    (path / "adapter_model.safetensors").write_bytes(b"other weights")
    with pytest.raises(BundleError, match="not the one that was evaluated"):
        load_bundle(rename_to_digest(path))


def test_a_decision_turned_to_no_with_every_digest_made_anew_is_refused(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path
    manifest = read_json(path / "bundle.json")
    manifest["decision"]["passed"] = False
    (path / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="the gate said no"):
        load_bundle(rename_to_digest(path))


def test_another_name_needs_the_digest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    moved = bundle.path.rename(tmp_path / "models")
    with pytest.raises(BundleError, match="named by its digest"):
        load_bundle(moved)
    assert load_bundle(moved, bundle.digest).digest == bundle.digest
    with pytest.raises(BundleError, match=re.escape("not ffffffffffff")):
        load_bundle(moved, "f" * 64)


@pytest.mark.parametrize(
    ("content", "told"),
    [("{", "Invalid JSON"), ("[]", "valid dictionary|object"), ('{"schema": 2}', "schema")],
)
def test_a_manifest_that_cannot_be_read_is_one_short_line(
    tmp_path: Path, content: str, told: str
) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=told) as caught:
        load_bundle(bundle.path)
    assert len(str(caught.value)) < 700


def test_a_directory_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is no bundle"):
        load_bundle(tmp_path / "absent")
