"""The evaluate step: what it writes is what the gate reads, and nothing unmeasured passes."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grocer.config.recipes import tiny
from grocer.config.run import RunConfig
from grocer.config.stages import EvaluationConfig
from grocer.errors import CatalogueError, ModelError
from grocer.evaluation import predictions as answers
from grocer.evaluation.run import evaluate
from grocer.gate.rules import decide
from grocer.io.atomic import tree_digest, tree_digests
from tests.fixtures.artifacts import write_model
from tests.fixtures.predictions import LABELS, LEAVES, KnowsNouns, aisle_of, products, write_splits

CONFIG: RunConfig = tiny().model_copy(update={"evaluation": EvaluationConfig(sample_size=30)})


class Step:
    """A model, splits and a place for results; the scorer is `KnowsNouns`."""

    def __init__(self, root: Path) -> None:
        self.model = write_model(root / "model", CONFIG)
        self.splits = write_splits(root / "splits")
        self.out = root / "out"
        self.out.mkdir()

    def run(self, champion: Path | None = None) -> dict:
        return evaluate(self.model, self.splits, CONFIG, self.out, champion)


@pytest.fixture
def scorers(monkeypatch):
    """The scorer that each model path gets; the default knows nouns."""
    found: dict[Path, KnowsNouns] = {}
    monkeypatch.setattr(answers, "load", lambda model, config: found.get(model, KnowsNouns()))
    return found


@pytest.fixture
def step(tmp_path, scorers):
    return Step(tmp_path)


def test_the_numbers_are_those_of_the_products(step):
    found = step.run()
    assert json.loads((step.out / "evaluation.json").read_text()) == found
    assert found["labels"] == list(LABELS)
    assert {side: m["products"] for side, m in found["metrics"].items()} == {
        "train": 30,
        "validation": 40,
        "test": 40,
    }
    # Every twelfth product belies its noun, and all of those fall into test.
    assert found["metrics"]["train"]["accuracy"] == 1.0
    assert found["metrics"]["test"]["accuracy"] == pytest.approx(30 / 40)
    assert np.trace(found["confusion"]) == 30
    assert sum(d["support"] for d in found["departments"].values()) == 40
    assert len(found["confident_errors"]) == 10
    assert sum(found["reference"]["departments"].values()) == pytest.approx(1.0)


def test_the_gate_finds_nothing_wanting(step):
    decision = decide(step.run(), CONFIG.gate)
    reasons = {reason.rule: reason for reason in decision.reasons}
    assert reasons["measured"].passed, reasons["measured"].sentence
    assert reasons["consistent"].passed, reasons["consistent"].sentence


def test_the_untuned_base_is_paired_on_its_own_sample(step):
    base = step.run()["baselines"]["base_model"]
    assert base["products"] == base["paired"]["products"] == 30
    assert base["accuracy"] < base["paired"]["model_accuracy"]


def test_the_temperature_is_fitted_on_validation_and_applied_to_all(step, scorers):
    scorers[step.model] = KnowsNouns(sureness=1.0)
    found = step.run()
    assert found["calibration"]["temperature"] < 0.5  # every validation answer is right
    told = pd.read_parquet(step.out / "predictions.parquet")
    assert told["probability"].min() > np.exp(1.0) / (np.exp(1.0) + 2)


def test_tables_hold_every_scored_product_and_the_recovered_ones(step):
    step.run()
    told = pd.read_parquet(step.out / "predictions.parquet")
    assert told["split"].value_counts().to_dict() == {"validation": 40, "test": 40, "train": 30}
    assert (told["ranked_departments"].str[0] == told["predicted"]).all()
    assert told["ranked_probabilities"].map(sum).to_numpy() == pytest.approx(np.ones(110))
    confusion = pd.read_csv(step.out / "confusion.csv", index_col="department")
    assert confusion.to_numpy().sum() == 40
    recovered = pd.read_csv(step.out / "recovered.csv")
    assert recovered["product_name"].tolist() == ["Late <b>Kefir</b>", "Late Bagel"]
    assert recovered["suggested_department"].tolist() == ["dairy eggs", "bakery"]


@pytest.fixture
def levelled(step, scorers):
    """The same step on products with aisles; a model that knows those too."""
    scorers[step.model] = KnowsNouns(leaves=LEAVES)
    for side in ("train", "validation", "test"):
        path = step.splits / f"{side}.parquet"
        table = pd.read_parquet(path)
        table.assign(aisle=table["product_name"].map(aisle_of)).to_parquet(path, index=False)
    return step


def test_one_level_has_no_aisles(step):
    assert step.run()["aisles"] is None


def test_aisles_leave_every_figure_of_the_department_as_it_was(levelled, scorers):
    after = levelled.run()
    scorers[levelled.model] = KnowsNouns()
    before = levelled.run()
    same = [key for key in before if key != "aisles"]
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert decide(after, CONFIG.gate).reasons == decide(before, CONFIG.gate).reasons


def test_an_aisle_is_right_only_where_the_department_is(levelled):
    found = levelled.run()["aisles"]
    test = found["metrics"]["test"]
    # The model knows each noun's aisle; every department that is wrong makes the aisle wrong.
    assert test["products"] == 40
    assert test["accuracy"] == test["department_accuracy"] == pytest.approx(30 / 40)
    assert test["accuracy_within"] == 1.0
    assert found["temperature"] < 0.5  # never wrong on validation, so ever surer
    assert found["labels"] == {label: ["end", "front"] for label in LABELS}
    assert sum(row["support"] for row in found["aisles"]) == 40
    assert sum(row["products"] for row in found["mix_ups"]) == 10
    assert 0 < found["linear"]["accuracy"] <= 1
    told = pd.read_parquet(levelled.out / "predictions.parquet")
    assert (told["predicted_aisle"] == told["product_name"].map(aisle_of)).all()
    assert (told["aisle_probability"] <= told["probability"] + 1e-12).all()
    recovered = pd.read_csv(levelled.out / "recovered.csv")
    assert recovered["suggested_aisle"].tolist() == ["end", "front"]


def test_products_whose_aisle_is_unknown_count_for_the_department_alone(levelled):
    path = levelled.splits / "test.parquet"
    table = pd.read_parquet(path)
    table.loc[:9, "aisle"] = ""
    table.loc[10, "aisle"] = "never taught"
    table.to_parquet(path, index=False)
    found = levelled.run()
    assert found["metrics"]["test"]["products"] == 40
    assert found["aisles"]["metrics"]["test"]["products"] == 30
    (untaught,) = [row for row in found["aisles"]["aisles"] if row["aisle"] == "never taught"]
    assert (untaught["support"], untaught["recall"], untaught["precision"]) == (1, 0.0, None)


def test_where_no_aisle_is_known_none_is_measured(levelled):
    for side in ("train", "validation", "test"):
        path = levelled.splits / f"{side}.parquet"
        pd.read_parquet(path).assign(aisle="").to_parquet(path, index=False)
    found = levelled.run()["aisles"]
    assert found["metrics"] == {"train": None, "validation": None, "test": None}
    assert (found["temperature"], found["linear"], found["aisles"]) == (1.0, None, [])
    assert "The aisle within" not in (levelled.out / "report.html").read_text()


def test_the_same_inputs_give_the_same_evaluation(step, tmp_path):
    again = tmp_path / "again"
    again.mkdir()
    step.run()
    evaluate(step.model, step.splits, CONFIG, again)
    assert tree_digests(step.out) == tree_digests(again)


def test_a_champion_of_another_label_set_answers_by_name(step, scorers, tmp_path):
    champion = write_model(tmp_path / "champion", CONFIG, weights=b"others")
    scorers[champion] = KnowsNouns(labels=["produce", "pets", "bakery"])
    found = step.run(champion)["champion"]
    assert found["digest"] == tree_digest(tree_digests(champion))
    assert found["products"] == 40
    assert found["accuracy"] < found["paired"]["model_accuracy"]
    assert found["paired"]["only_model_right"] > 0


def test_without_unlabelled_products_nothing_is_recovered(step):
    path = step.splits / "unlabelled.parquet"
    pd.read_parquet(path).head(0).to_parquet(path, index=False)
    step.run()
    assert pd.read_csv(step.out / "recovered.csv").empty


@pytest.mark.parametrize("side", ["train", "validation", "test"])
def test_an_empty_side_is_told(step, side):
    path = step.splits / f"{side}.parquet"
    pd.read_parquet(path).head(0).to_parquet(path, index=False)
    with pytest.raises(CatalogueError, match=f"no {side} products"):
        step.run()


def test_training_on_a_single_department_is_told(step):
    table = products().assign(department="produce")
    table.to_parquet(step.splits / "train.parquet", index=False)
    with pytest.raises(CatalogueError, match="one department"):
        step.run()


def test_a_department_that_the_model_does_not_know_is_told(step, scorers):
    scorers[step.model] = KnowsNouns(labels=["bakery", "produce"])
    with pytest.raises(ModelError, match="dairy eggs"):
        step.run()


def test_a_score_that_is_no_number_fails_the_step(step, scorers):
    class Broken(KnowsNouns):
        def log_probabilities(self, names, progress=None):
            logs = super().log_probabilities(names, progress)
            logs[0, 0] = np.nan
            return logs

    scorers[step.model] = Broken()
    with pytest.raises(FloatingPointError):
        step.run()
    assert not (step.out / "evaluation.json").exists()
