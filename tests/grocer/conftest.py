"""Fixtures that several test packages of grocer share."""

import pytest

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.splits import Splits
from grocer.config.recipes import tiny
from grocer.evaluation import predictions, run
from grocer.evaluation.champion import Champion
from grocer.events import VARIABLE, EventFile
from grocer.inference.classifier import Classifier
from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import make_bundle, write_model
from tests.fixtures.predictions import NounScorer, write_splits


@pytest.fixture
def events(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> EventFile:
    """The file of the events that a test emits."""
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    monkeypatch.setenv(VARIABLE, str(path))
    return EventFile(path)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """A bundle that tests do not change."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory, bundle: LoadedBundle) -> Evaluation:
    """An evaluation of generated products, with a champion."""
    root = tmp_path_factory.mktemp("evaluation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "load_scorer", lambda *_, **adapter: NounScorer(**adapter))
        patch.setattr(Classifier, "load", lambda *_, **__: NounScorer())
        (root / "out").mkdir()
        model, splits = write_model(root / "model", tiny()), write_splits(root / "splits")
        return run.run(
            Adapter.read(model),
            Splits.read(splits),
            tiny(),
            root / "out",
            champion=Champion(bundle, str(bundle.path)),
        )
