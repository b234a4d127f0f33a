"""The lineage of bundles and of runs whose gate failed."""

from dataclasses import replace
from pathlib import Path

import pytest

from grocer.artifacts.evaluation import Evaluation
from grocer.config.recipes import tiny
from grocer.errors import ArtifactError, BundleError
from grocer.release.bundle import write_bundle
from grocer.release.lineage import Lineage, read_lineage
from tests.fixtures.artifacts import make_bundle, write_artifacts, write_decision
from tests.fixtures.evaluations import evaluation, parse


def test_lineage_of_a_bundle_has_what_the_bundle_records(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    lineage = Lineage.of_bundle(bundle, "s3://b/x")
    manifest = bundle.manifest
    assert (lineage.bundle, lineage.uri, lineage.verdict) == (bundle.digest, "s3://b/x", "passed")
    assert lineage.accuracy_low == manifest.evaluation.metrics.test.accuracy_low
    assert set(lineage.baselines) == set(manifest.evaluation.baselines)
    compared = parse(evaluation(champion=(6, 5)))
    other = replace(bundle, manifest=manifest.model_copy(update={"evaluation": compared}))
    assert compared.champion is not None
    assert Lineage.of_bundle(other, "").baselines["champion"] == compared.champion.accuracy
    assert lineage.digests["splits"] == manifest.evaluation.digests.splits
    assert lineage.digests["configuration"] == manifest.config.digest
    assert manifest.base is not None
    assert lineage.digests["base"] == manifest.base["digest"]
    assert lineage.started == manifest.build.started


def test_lineage_of_a_run_equals_that_of_its_bundle(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts", tiny())
    bundle = write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundle")
    uri = str(bundle.path)
    assert Lineage.of_run(artifacts, tiny(), uri, bundle.digest) == Lineage.of_bundle(bundle, uri)


def test_lineage_of_a_failed_gate_has_no_bundle_and_its_failed_rules(tmp_path: Path) -> None:
    artifacts = write_artifacts(tmp_path / "artifacts", tiny())
    digests = {"evaluation": Evaluation.read(artifacts["evaluation"]).digest}
    artifacts["decision"] = write_decision(tmp_path / "failed", digests, passed=False)
    lineage = Lineage.of_run(artifacts, tiny(), "report.html")
    assert (lineage.verdict, lineage.bundle) == ("failed", None)
    assert "0.85" in lineage.failed_rules
    assert lineage.run == digests["evaluation"]  # outside a run there is no id


def test_lineage_is_read_from_a_run_or_a_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    lineage = Lineage.of_bundle(bundle, str(bundle.path))
    (tmp_path / "run").mkdir()
    lineage.write(tmp_path / "run")
    for source in (tmp_path / "run", bundle.path):
        found = read_lineage(str(source), tmp_path / "download")
        assert found.model_dump() == lineage.model_dump()


def test_lineage_of_other_directories_and_modified_bundles_is_rejected(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path)
    with pytest.raises(ArtifactError, match=r"lineage\.json"):
        read_lineage(str(tmp_path), tmp_path / "download")
    (bundle.path / "labels.json").write_text("[]")
    with pytest.raises(BundleError, match=r"labels\.json"):
        read_lineage(str(bundle.path), tmp_path / "download")
