"""Fixtures that several tests of the domain share."""

from __future__ import annotations

from typing import Any

import pytest

from grocer.config.recipes import tiny
from grocer.evaluation import predictions as answers
from grocer.evaluation.run import evaluate
from tests.fixtures.artifacts import write_model
from tests.fixtures.predictions import KnowsNouns, write_splits


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An evaluation of made-up products, with a champion; none may change it."""
    root = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "load", lambda model, config: KnowsNouns())
        (root / "out").mkdir()
        model, splits = write_model(root / "model", tiny()), write_splits(root / "splits")
        return evaluate(model, splits, tiny(), root / "out", champion=model)
