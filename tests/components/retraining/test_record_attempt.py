"""A judged run is recorded where check_due finds it."""

from pathlib import Path

import pytest

from components.retraining.check_due import check_due
from components.retraining.record_attempt import record_attempt
from grocer.config.recipes import tiny
from grocer.release.lineage import Lineage
from tests.fixtures.artifacts import as_inputs, write_artifacts


@pytest.mark.parametrize("passed", [True, False])
def test_judged_run_starts_the_cool_down(tmp_path: Path, passed: bool) -> None:
    state, config = tmp_path / "state", tiny()
    artifacts = write_artifacts(tmp_path / "artifacts", config, passed=passed)
    conditions = {
        "config": config.to_json(),
        "when": "30d",
        "metrics": "",
        "cool_down_days": 7.0,
        "state": str(state),
        "champion": "",
        **as_inputs({"reasons": tmp_path / "reasons.md"}),
    }
    assert check_due.python_func(**conditions) is True
    record_attempt.python_func(**as_inputs(artifacts), config=config.to_json(), state=str(state))
    lineage = Lineage.read(state)
    assert (lineage.verdict, lineage.uri) == (
        "passed" if passed else "failed",
        "s3://runs/1/evaluation",
    )
    assert check_due.python_func(**conditions) is False
    assert "| cool-down over | 0.0 days" in (tmp_path / "reasons.md").read_text()
