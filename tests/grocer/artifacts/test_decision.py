"""A decision agrees with its reasons."""

from typing import Any

import pytest

from grocer.artifacts.decision import Decision
from grocer.errors import ArtifactError
from tests.fixtures.stage_artifacts import DECISION, content


@pytest.mark.parametrize(
    "changes",
    [
        {"passed": False},
        {"reasons": []},
        {"reasons": [{"rule": "accuracy", "passed": False, "sentence": "low"}]},
    ],
)
def test_decision_that_contradicts_its_reasons_is_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="passed contradicts the reasons"):
        Decision.parse(content(DECISION, **changes), "decision.json")
