"""Provenance is an in-toto statement about the bundle's files, and follows from bundle.json."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as Message

from grocer.artifacts.step import IMAGE_VARIABLE, RUN_VARIABLE, digest_of
from grocer.errors import BundleError
from grocer.io.atomic import file_digest, read_json
from grocer.release import provenance
from grocer.release.bundle import load_bundle
from tests.fixtures.artifacts import make_bundle, rename_to_digest

IMAGE = f"registry.example/grocer-train@sha256:{'a' * 64}"


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(RUN_VARIABLE, "8c5f")
    monkeypatch.setenv(IMAGE_VARIABLE, IMAGE)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    return make_bundle(tmp_path, strategy="ensemble").path


def test_provenance_is_an_in_toto_statement_with_slsa_provenance(bundle: Path) -> None:
    content = (bundle / "provenance.json").read_text()
    Statement.copy_from_pb(json_format.Parse(content, Message())).validate()
    statement = json.loads(content)
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    json_format.ParseDict(statement["predicate"], Provenance())  # no unknown fields
    described = {"MODEL_CARD.md", "bundle.json", "provenance.json"}
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == {
        path.name: file_digest(path) for path in bundle.iterdir() if path.name not in described
    }


def test_provenance_names_data_base_judgement_and_run(bundle: Path, tmp_path: Path) -> None:
    predicate = read_json(bundle / "provenance.json")["predicate"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    manifest = load_bundle(bundle).manifest
    artifacts = tmp_path / "artifacts"
    digests = {
        each["name"]: each.get("digest", {}).get("sha256")
        for each in (*definition["resolvedDependencies"], *details["byproducts"])
    }
    assert (
        digests.items()
        >= {
            "data": digest_of(artifacts / "tables"),
            "splits": digest_of(artifacts / "splits"),
            "base": "0123456789abcdef",
            "adapter": digest_of(artifacts / "model"),
            "evaluation": digest_of(artifacts / "evaluation"),
            "decision": file_digest(artifacts / "decision" / "decision.json"),
            "image of train": "a" * 64,
            "requirements.lock": file_digest(Path(__file__).parents[3] / "requirements.lock"),
        }.items()
    )
    assert definition["externalParameters"]["configuration"] == {"sha256": manifest.config.digest}
    assert details["builder"]["id"] == "urn:grocer:kubeflow"
    assert details["metadata"]["invocationId"] == "8c5f"
    assert details["metadata"]["startedOn"] <= details["metadata"]["finishedOn"]


def test_model_card_tells_the_provenance(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "Run 8c5f on Kubeflow made this bundle from " in card
    assert IMAGE in card


def test_build_that_differs_from_the_provenance_is_rejected(bundle: Path) -> None:
    manifest = read_json(bundle / "bundle.json")
    manifest["build"]["images"] = {"train": "other"}
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="does not describe this bundle"):
        load_bundle(rename_to_digest(bundle))


@pytest.mark.parametrize(
    ("content", "commit"), [('{"commit": "c0ffee", "lock": ""}', "c0ffee"), (None, None)]
)
def test_installation_without_a_checkout_has_the_commit_of_its_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, commit: str | None
) -> None:
    package = tmp_path / "grocer"
    package.mkdir()
    if content is not None:
        (package / "build.json").write_text(content)
    monkeypatch.setattr(provenance, "_PACKAGE", package)
    build = make_bundle(tmp_path).manifest.build
    assert (build.commit, build.lock) == (commit, None)
