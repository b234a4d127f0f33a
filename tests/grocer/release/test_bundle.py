"""A bundle is named by its content, and only an evaluated adapter that passed is bundled."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from grocer.artifacts.step import digest_of, step
from grocer.config.recipes import tiny
from grocer.errors import ArtifactError, BundleError
from grocer.gate.run import run as judge
from grocer.io.atomic import file_digest, json_digest, read_json, tree_digest, tree_digests
from grocer.release.bundle import load_bundle, write_bundle
from grocer.release.manifest import Manifest, origins_of
from tests.fixtures.artifacts import (
    AISLES,
    make_bundle,
    rename_to_digest,
    write_artifacts,
    write_decision,
)
from tests.fixtures.evaluations import combination

SCHEMA_1 = Path(__file__).parent / "bundle_schema_1"


def test_bundle_is_complete_and_named_by_its_digest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert bundle.path == tmp_path / bundle.digest
    assert bundle.digest == tree_digest(tree_digests(bundle.path))
    assert sorted(path.name for path in bundle.path.iterdir()) == [
        "MODEL_CARD.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
        "bundle.json",
        "known_products.npy",
        "labels.json",
        "provenance.json",
        "template.json",
        "tokenizer.json",
    ]
    manifest = read_json(bundle.path / "bundle.json")
    assert manifest["combination"] == combination("adapter")
    assert manifest["config"]["recipe"] == "tiny"
    assert all(file_digest(bundle.path / n) == d for n, d in manifest["files"].items())


def test_bundle_of_two_levels_holds_aisles(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path, tiny().with_settings(["catalogue.levels=2"]))
    assert read_json(bundle.path / "aisles.json") == AISLES
    assert bundle.leaves == (
        ("dairy eggs", "milk"),
        ("dairy eggs", "yogurt"),
        ("produce", "fresh fruits"),
        ("produce", "fresh herbs"),
    )
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert "4 aisles" in card
    assert "70.0 % (67.0 % to 73.0 %)" in card


@pytest.mark.parametrize(
    ("strategy", "adapter"), [("ensemble", True), ("cascade", True), ("linear", False)]
)
def test_bundle_holds_the_files_of_its_strategy(
    tmp_path: Path, strategy: str, adapter: bool
) -> None:
    bundle = make_bundle(tmp_path, strategy=strategy)
    manifest, names = bundle.manifest, {path.name for path in bundle.path.iterdir()}
    assert {"labels.json", "linear.npz"} <= names
    of_adapter = {"adapter_model.safetensors", "tokenizer.json", "base.json", "template.json"}
    assert (names & of_adapter) == (of_adapter if adapter else set())
    assert (manifest.base is None, manifest.template is None) == (not adapter, not adapter)
    assert manifest.combination == manifest.evaluation.combination
    assert manifest.combination.strategy == strategy
    linear_file = tmp_path / "artifacts" / "evaluation" / "linear.npz"
    assert manifest.files["linear.npz"] == file_digest(linear_file)
    card = (bundle.path / "MODEL_CARD.md").read_text()
    assert f"| Strategy | `{strategy}`" in card
    assert f"| {strategy} (this one) |" in card
    assert ("library_name: peft" in card) == adapter
    assert "{{" not in card
    assert load_bundle(bundle.path).digest == bundle.digest


@pytest.mark.parametrize(
    ("strategy", "levels", "name", "content"),
    [
        ("adapter", 1, "MODEL_CARD.md", "another card"),
        ("adapter", 1, "tokenizer.json", '{"other": 1}'),
        ("adapter", 1, "adapter_model.safetensors", "other weights"),
        ("adapter", 1, "base/config.json", "{}"),
        ("ensemble", 1, "linear.npz", "another model"),
        # Models that the strategy does not use.
        ("adapter", 1, "linear.npz", "model"),
        ("linear", 1, "adapter_model.safetensors", "model"),
        # The order of the aisles determines the columns of the scores.
        ("adapter", 2, "aisles.json", '{"produce": ["fresh herbs", "fresh fruits"]}'),
        ("adapter", 2, "aisles.json", None),
        ("adapter", 1, "aisles.json", '{"produce": ["fruit"]}'),
    ],
)
def test_other_file_with_updated_digests_is_rejected(
    tmp_path: Path, strategy: str, levels: int, name: str, content: str | None
) -> None:
    config = tiny().with_settings([f"catalogue.levels={levels}"])
    path = make_bundle(tmp_path, config, strategy=strategy).path
    if content is None:
        (path / name).unlink()
    else:
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_text(content)
    problem = "does not describe" if name == "MODEL_CARD.md" else "is not the file"
    with pytest.raises(BundleError, match=f"{name} {problem}"):
        load_bundle(rename_to_digest(path))


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value that is not a filled object or list."""
    if not isinstance(value, dict | list) or not value:
        yield path
        return
    for key, each in value.items() if isinstance(value, dict) else enumerate(value):
        yield from leaves(each, (*path, key))


def other_values(value: Any) -> list[Any]:
    """Return other values of the same type, so that the schema may accept them."""
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1]
        case float():
            return [value + 1e-9]
        case str() if re.fullmatch("[0-9a-f]{64}", value):
            return ["f" * 64]
        case str():
            return [f"{value} x"]
        case None:
            return ["x", 1, {}]
        case _:
            return [["x"], {"x": ["x"]}]


@pytest.mark.parametrize(("strategy", "levels"), [("adapter", 2), ("ensemble", 1)])
def test_no_value_of_the_manifest_can_be_changed(
    tmp_path: Path, strategy: str, levels: int
) -> None:
    """Also not with a matching directory name, the only digest that is not in the manifest."""
    config = tiny().with_settings([f"catalogue.levels={levels}"])
    path = make_bundle(tmp_path, config, strategy=strategy).path
    text = (path / "bundle.json").read_text()
    paths = list(leaves(json.loads(text)))
    assert len(paths) > 300
    accepted = []
    for keys in paths:
        original = reduce(lambda node, key: node[key], keys, json.loads(text))
        for value in other_values(original):
            manifest = json.loads(text)
            reduce(lambda node, key: node[key], keys[:-1], manifest)[keys[-1]] = value
            content = json.dumps(manifest).encode()
            (path / "bundle.json").write_bytes(content)
            digest = tree_digest(
                {**manifest["files"], "bundle.json": hashlib.sha256(content).hexdigest()}
            )
            with suppress(BundleError):
                load_bundle(path, digest)
                accepted.append((keys, value))
    assert accepted == []
    (path / "bundle.json").write_text(text)
    assert load_bundle(path).digest == path.name


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "linear"])
@pytest.mark.parametrize("artifact", ["model", "splits", "evaluation"])
def test_artifact_that_was_changed_after_its_step_is_rejected(
    tmp_path: Path, artifact: str, strategy: str
) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts", strategy=strategy)
    file = next(path for path in artifacts[artifact].rglob("*.*") if path.name != "artifact.json")
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=f"{artifact} was modified: .*{file.name} was changed"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")


def test_bundle_of_another_policy_is_not_written(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    other = tiny().with_settings(["gate.min_accuracy=0.1"])
    with pytest.raises(BundleError, match="configuration differs from the digests"):
        write_bundle(**artifacts, config=other, root=tmp_path / "bundles")
    with step("gate", tmp_path / "lenient") as part:
        judge(artifacts["evaluation"], other.gate, part)
    artifacts["decision"] = tmp_path / "lenient"
    with pytest.raises(BundleError, match="decision is not that of the gate's rules"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")


@pytest.mark.parametrize(
    ("strategy", "missing", "step"),
    [
        ("cascade", "linear.npz", "evaluate"),
        ("cascade", "adapter/adapter_model.safetensors", "train"),
        ("linear", "labels.json", "train"),
    ],
)
def test_missing_file_is_reported_with_the_step_that_writes_it(
    tmp_path: Path, strategy: str, missing: str, step: str
) -> None:
    manifest = make_bundle(tmp_path, strategy=strategy).manifest
    artifacts = manifest.artifacts.model_copy(deep=True)
    for files in (artifacts.model, artifacts.evaluation):
        files.pop(missing, None)
    with pytest.raises(BundleError, match=f"{missing}: file not found.*{step}"):
        origins_of(artifacts, manifest.combination)


def test_bundle_holds_no_product_names(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    assert "Secret Sauce" not in (bundle.path / "bundle.json").read_text()


def test_model_card_has_metrics_reasons_and_limitations(tmp_path: Path) -> None:
    card = (make_bundle(tmp_path).path / "MODEL_CARD.md").read_text()
    assert "| test | 300 | 90.7 % | 87.7 % to 93.7 % |" in card
    assert "| baseline: linear | 300 | 80.7 % |" in card
    assert "- Test products: 300 (minimum 200)." in card
    assert "## Limitations" in card
    assert "{{" not in card


def test_writing_a_bundle_is_idempotent(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    first = write_bundle(**artifacts, config=tiny(), root=tmp_path)
    assert write_bundle(**artifacts, config=tiny(), root=tmp_path).digest == first.digest


def test_failed_gate_is_not_bundled(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts", passed=False)
    with pytest.raises(BundleError, match=r"gate failed.*minimum 0\.950"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize("name", ["model", "splits", "evaluation"])
def test_decision_about_another_artifact_is_rejected(tmp_path: Path, name: str) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts")
    digests = {key: digest_of(artifacts[key]) for key in ("model", "splits", "evaluation")}
    artifacts["decision"] = write_decision(tmp_path / "other", digests | {name: "f" * 64})
    with pytest.raises(BundleError, match=f"another {name}: its digest is ffffffffffff"):
        write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")


def test_removed_or_added_file_is_rejected_by_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "extra.bin").write_bytes(b"")
    with pytest.raises(BundleError, match=r"extra\.bin was added"):
        load_bundle(bundle.path)
    (bundle.path / "extra.bin").unlink()
    (bundle.path / "labels.json").unlink()
    with pytest.raises(BundleError, match=r"labels\.json is missing"):
        load_bundle(bundle.path)


def test_failed_decision_with_updated_digests_is_rejected(tmp_path: Path) -> None:
    path = make_bundle(tmp_path).path
    manifest = read_json(path / "bundle.json")
    manifest["decision"]["passed"] = False
    manifest["decision"]["reasons"][0]["passed"] = False
    (path / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="the gate failed"):
        load_bundle(rename_to_digest(path))


def test_copy_under_another_name_requires_the_digest(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    moved = bundle.path.rename(tmp_path / "models")
    with pytest.raises(BundleError, match="named by its digest"):
        load_bundle(moved)
    assert load_bundle(moved, bundle.digest).digest == bundle.digest
    with pytest.raises(BundleError, match="not ffffffffffff"):
        load_bundle(moved, "f" * 64)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "Invalid JSON"),
        ("[]", "should be an object"),
        ('{"schema": 7}', r"version 7, but .* reads version 8; .* or train again"),
        ('{"schema": 9}', r"version 9, but .* reads version 8; "),
        ('{"schema": 8}', "schema version 8: base: Field required"),
    ],
)
def test_manifest_that_cannot_be_read_is_rejected_in_one_short_line(
    tmp_path: Path, content: str, problem: str
) -> None:
    bundle = make_bundle(tmp_path)
    (bundle.path / "bundle.json").write_text(content)
    with pytest.raises(BundleError, match=problem) as caught:
        load_bundle(bundle.path)
    assert len(str(caught.value)) < 700


def test_schema_version_changes_with_the_settings() -> None:
    """A bundle holds its configuration and its digest, which depends on the names of settings.

    If they change, raise the schema version, unless it was raised since the last release.
    """
    sections = {name: each for name, each in tiny().model_dump().items() if isinstance(each, dict)}
    names = json_digest([f"{name}.{key}" for name in sections for key in sections[name]])
    assert (Manifest.model_fields["schema_version"].default, names[:8]) == (8, "04ac3071")


def test_bundle_of_schema_1_is_rejected_by_its_version(tmp_path: Path) -> None:
    """It was written by Grocer 0.1.0, before artifacts were typed."""
    with pytest.raises(
        BundleError, match=r"bundle\.json: schema: version 1, but .* reads version 8; .*again$"
    ):
        load_bundle(SCHEMA_1, "f" * 64)


def test_directory_without_a_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(tmp_path / "absent")
    (tmp_path / "abc").mkdir()
    (tmp_path / "abc" / "bundle.json").write_text("{}")
    with pytest.raises(BundleError, match=r"did you mean .*/abc"):
        load_bundle(tmp_path)
