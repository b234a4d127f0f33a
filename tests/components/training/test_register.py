"""A failed gate is registered with its report; a registry that is down does not fail the step."""

from pathlib import Path

import pytest

from components.training.register import register
from grocer.config.recipes import tiny
from grocer.release.lineage import Lineage
from tests.fixtures.artifacts import as_inputs, write_artifacts, write_decision
from tests.fixtures.model_registry import ModelRegistry


@pytest.mark.parametrize("fault", ["", "500"])
def test_failed_gate_is_registered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    with ModelRegistry() as server:
        server.fault = fault
        config = tiny().with_settings([f"registry.address={server.url}"])
        artifacts = write_artifacts(tmp_path / "artifacts", config)
        digests = {"evaluation": "e" * 64}
        artifacts["decision"] = write_decision(tmp_path / "failed", digests, passed=False)
        register.python_func(
            **as_inputs(artifacts | {"lineage": tmp_path / "lineage"}), config=config.to_json()
        )
        versions = server.versions
    lineage = Lineage.read(tmp_path / "lineage")
    assert (lineage.verdict, lineage.uri) == ("failed", "s3://runs/1/evaluation")
    assert [version["state"] for version in versions] == ([] if fault else ["ARCHIVED"])
    assert ("--register s3://runs/1/lineage" in capsys.readouterr().out) == bool(fault)
