"""The evaluate stage: its metrics are those of the products, and the gate accepts them."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.base import SIDES
from grocer.artifacts.combination import Strategy
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.splits import Splits
from grocer.config.recipes import tiny
from grocer.config.run import RunConfig
from grocer.config.stages import EvaluationConfig, PredictorConfig
from grocer.errors import CatalogueError, ModelError
from grocer.evaluation import predictions
from grocer.evaluation.champion import Champion
from grocer.evaluation.run import run
from grocer.gate.rules import decide
from grocer.io.atomic import tree_digests
from grocer.model.combination import combine
from grocer.model.linear.classifier import LinearModel
from tests.fixtures.artifacts import make_bundle, write_model
from tests.fixtures.predictions import LABELS, LEAVES, NounScorer, aisle_of, products, write_splits

CONFIG: RunConfig = tiny().model_copy(
    update={"evaluation": EvaluationConfig(sample_size=30), "predictor": PredictorConfig()}
)
STRATEGIES: tuple[Strategy, ...] = ("adapter", "linear", "ensemble", "cascade")


class Stage:
    """Inputs and output directory of the evaluate stage."""

    def __init__(self, root: Path) -> None:
        self.model = write_model(root / "model", CONFIG)
        self.splits = write_splits(root / "splits")
        self.out = root / "out"
        self.out.mkdir()

    def run(
        self, champion: Champion | None = None, out: Path | None = None, strategy: str = "adapter"
    ) -> Evaluation:
        config = CONFIG.model_copy(update={"predictor": PredictorConfig(strategy=strategy)})
        adapter, splits = Adapter.read(self.model), Splits.read(self.splits)
        return run(adapter, splits, config, out or self.out, champion)

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.splits / f"{name}.parquet")

    def replace(self, name: str, table: pd.DataFrame) -> None:
        table.to_parquet(self.splits / f"{name}.parquet", index=False)


@pytest.fixture
def scorers(monkeypatch):
    """The scorer of each artifact or bundle; `NounScorer()` by default."""
    by_path: dict[Path, NounScorer] = {}

    def load(model: Path, *_: RunConfig, with_adapter: bool = True, **__: str) -> NounScorer:
        scorer = by_path.get(model, NounScorer())
        return scorer if with_adapter else NounScorer(scorer.labels, with_adapter=False)

    monkeypatch.setattr(predictions, "load_scorer", load)
    monkeypatch.setattr(predictions.Classifier, "load", load)
    return by_path


@pytest.fixture
def stage(tmp_path, scorers):
    return Stage(tmp_path)


def test_metrics_are_those_of_the_products(stage):
    evaluation = stage.run()
    assert Evaluation.read(stage.out).model_dump() == evaluation.model_dump()
    assert evaluation.labels == LABELS
    assert {side: each.products for side, each in evaluation.metrics} == {
        "train": 30,
        "validation": 40,
        "test": 40,
    }
    # Every twelfth product has a wrong label, and all of those are test products.
    assert evaluation.metrics.train.accuracy == 1.0
    assert evaluation.metrics.test.accuracy == pytest.approx(30 / 40)
    assert np.trace(evaluation.confusion) == 30
    assert sum(each.support for each in evaluation.departments.values()) == 40
    assert len(evaluation.confident_errors) == 10
    assert sum(evaluation.reference.departments.values()) == pytest.approx(1.0)
    base = evaluation.baselines["base_model"]
    assert base.products == base.paired.products == 30  # a sample
    assert base.accuracy < base.paired.model_accuracy
    assert evaluation.aisles is None


def test_gpu_out_of_memory_is_one_line(stage, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.95 GiB.")

    monkeypatch.setattr(predictions, "load_scorer", load)
    with pytest.raises(ModelError, match=r"out of memory: requested 1.95 GiB"):
        stage.run()


def test_accuracy_is_also_measured_on_uncorrected_labels(stage):
    assert stage.run().raw_labels is None
    test = stage.table("test").assign(uncorrected=lambda table: table["department"])
    wrong = test["product_id"].iloc[:7]
    raw = test["department"].mask(test["product_id"].isin(wrong), LABELS[0])
    raw.iloc[-1] = ""  # had no label
    stage.replace("test", test.assign(uncorrected=raw))
    evaluation = stage.run(out=stage.out.parent)
    assert evaluation.raw_labels.corrected == (raw != test["department"]).sum() > 1
    predicted = pd.read_parquet(stage.out.parent / "predictions.parquet")
    predicted = predicted[predicted["split"] == "test"]["predicted"]
    correct = predicted.to_numpy() == raw.to_numpy()
    assert evaluation.raw_labels.accuracy.products == len(test) - 1
    assert evaluation.raw_labels.accuracy.accuracy == pytest.approx(correct[:-1].mean())
    assert evaluation.metrics.test.products == len(test)
    assert "on uncorrected labels" in (stage.out.parent / "report.html").read_text()


def test_thresholds_are_those_of_the_validation_products(stage):
    """They do not change if the model is uncertain about all test products."""
    before = stage.run()
    point = before.operating_points[0]
    assert point.accuracy.products == point.coverage * 40
    unknown = [f"Thing {number}" for number in range(40)]
    stage.replace("test", stage.table("test").assign(product_name=unknown))
    after = stage.run()
    assert [each.threshold for each in after.operating_points] == [
        each.threshold for each in before.operating_points
    ]
    assert after.operating_points[0].coverage == 0.0
    assert [each.threshold for each in after.coverage] == [0.0]  # no product reaches the others


def test_interval_by_first_word_is_that_of_the_names(stage):
    before = stage.run().metrics.test
    table = stage.table("test")
    stage.replace("test", table.assign(product_name="Same " + table["product_name"]))
    after = stage.run().metrics.test
    assert before.cluster_low < before.accuracy < before.cluster_high
    assert after.cluster_low == after.cluster_high == after.accuracy == before.accuracy


def test_reference_of_monitoring_has_the_purchases_of_all_products(stage):
    for side in SIDES:
        table = stage.table(side)
        purchases = np.where(table["department"] == "produce", 8, 1)
        stage.replace(side, table.assign(purchases=purchases))
    products = pd.concat([stage.table(side) for side in SIDES])
    produce = int((products["department"] == "produce").sum())
    share = 8 * produce / (8 * produce + len(products) - produce)
    reference = stage.run().reference
    assert reference.purchases["produce"] == pytest.approx(share)
    assert sum(reference.purchases.values()) == pytest.approx(1.0)
    assert reference.departments["produce"] < 0.5 < reference.purchases["produce"]


def test_reference_without_purchases_counts_products(stage):
    for side in SIDES:
        stage.replace(side, stage.table(side).assign(purchases=0))
    products = pd.concat([stage.table(side) for side in SIDES])
    expected = products["department"].value_counts(normalize=True).to_dict()
    assert stage.run().reference.purchases == pytest.approx(expected)


def test_reference_of_drift_has_the_signals_of_the_test_products(stage):
    evaluation = stage.run()
    known = evaluation.reference.drift
    assert known.products == evaluation.metrics.test.products
    (confidence,) = known.signals["confidence"].products
    assert confidence == pytest.approx(evaluation.reference.mean_confidence)
    departments = dict(zip(evaluation.labels, known.signals["departments"].products, strict=True))
    assert departments == pytest.approx(evaluation.reference.departments)
    assert set(known.signals) == {"confidence", "new_words", "names", "departments"}


def test_temperature_is_fitted_on_validation_and_applied_to_all_sides(stage, scorers):
    scorers[stage.model] = NounScorer(scale=1.0)
    assert stage.run().combination.adapter > 2  # all validation predictions are correct
    table = pd.read_parquet(stage.out / "predictions.parquet")
    assert table["probability"].min() > np.exp(1.0) / (np.exp(1.0) + 2)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_configured_classifier_is_measured_as_one_model(stage, strategy):
    evaluation = stage.run(strategy=strategy)
    assert evaluation.combination.strategy == strategy
    assert evaluation.selected_by == "configured"
    assert evaluation.selected.log_loss == evaluation.metrics.test.log_loss
    assert evaluation.selected.validation_log_loss == evaluation.metrics.validation.log_loss
    test = pd.read_parquet(stage.out / "predictions.parquet").query("split == 'test'")
    losses = -np.log(test["department_probability"])
    assert losses.mean() == pytest.approx(evaluation.selected.log_loss)
    reasons = {reason.rule: reason for reason in decide(evaluation, CONFIG.gate).reasons}
    assert reasons["measured"].passed, reasons["measured"].sentence
    assert reasons["consistent"].passed, reasons["consistent"].sentence


def test_auto_selects_by_validation_log_loss(stage, scorers):
    assert stage.run(strategy="auto").selected_by == "validation log-loss"
    scorers[stage.model] = NounScorer(scale=0.0)  # the language model knows nothing
    evaluation = stage.run(strategy="auto")
    assert evaluation.combination.strategy == "linear"
    losses = {name: each.validation_log_loss for name, each in evaluation.classifiers.items()}
    assert losses["linear"] < losses["adapter"]


def test_both_models_are_timed_on_the_test_products(stage, monkeypatch):
    # The clock advances by 1 s per reading, so each model takes 1 s for the 40 test products.
    clock = itertools.count()
    monkeypatch.setattr(predictions, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    measured = stage.run().classifiers
    assert measured["adapter"].names_per_second == measured["linear"].names_per_second == 40
    assert measured["ensemble"].names_per_second == 20


def test_linear_baseline_is_the_calibrated_linear_classifier(stage):
    evaluation = stage.run()
    linear, baseline = evaluation.classifiers["linear"], evaluation.baselines["linear"]
    assert (baseline.accuracy, baseline.macro_f1) == (linear.accuracy, linear.macro_f1)
    assert baseline.paired_log_loss.baseline_log_loss == linear.log_loss
    assert baseline.paired_log_loss.model_log_loss == evaluation.metrics.test.log_loss
    assert evaluation.baselines["majority"].paired_log_loss is None
    stored = LinearModel.load(stage.out)
    assert stored.labels == LABELS
    test = stage.table("test")
    probabilities = combine(
        linear.combination, None, stored.log_probabilities(test["product_name"].tolist())
    )
    truth = [LABELS.index(name) for name in test["department"]]
    assert (probabilities.argmax(axis=1) == truth).mean() == linear.accuracy


def test_linear_model_compared_with_itself_does_not_differ(stage):
    baseline = stage.run(strategy="linear").baselines["linear"]
    assert baseline.paired.p_value == baseline.paired_log_loss.p_value == 1.0
    assert baseline.paired.only_model_right == baseline.paired.only_baseline_right == 0


def test_tables_hold_every_scored_and_every_unlabelled_product(stage):
    stage.run()
    table = pd.read_parquet(stage.out / "predictions.parquet")
    assert table["split"].value_counts().to_dict() == {"validation": 40, "test": 40, "train": 30}
    assert (table["ranked_departments"].str[0] == table["predicted"]).all()
    assert table["ranked_probabilities"].map(sum).to_numpy() == pytest.approx(np.ones(110))
    confusion = pd.read_csv(stage.out / "confusion.csv", index_col="department")
    assert confusion.to_numpy().sum() == 40
    recovered = pd.read_csv(stage.out / "recovered.csv")
    assert recovered["product_name"].tolist() == ["Late <b>Kefir</b>", "Late Bagel"]
    assert recovered["suggested_department"].tolist() == ["dairy eggs", "bakery"]


@pytest.fixture
def two_levels(stage, scorers):
    """The stage on products with aisles, and a model that predicts them."""
    scorers[stage.model] = NounScorer(leaves=LEAVES)
    for side in SIDES:
        table = stage.table(side)
        stage.replace(side, table.assign(aisle=table["product_name"].map(aisle_of)))
    return stage


def test_aisles_do_not_change_department_metrics(two_levels, scorers):
    with_aisles = two_levels.run()
    scorers[two_levels.model] = NounScorer()
    without = two_levels.run()
    # The temperature of the aisles and the measured time differ.
    others = {"aisles", "combination", "classifiers"}
    assert with_aisles.model_dump(exclude=others) == without.model_dump(exclude=others)
    assert decide(with_aisles, CONFIG.gate) == decide(without, CONFIG.gate)


def test_aisle_is_correct_only_if_the_department_is(two_levels):
    evaluation = two_levels.run()
    aisles, test = evaluation.aisles, evaluation.aisles.metrics.test
    # The model knows each noun's aisle, so an aisle is wrong only by its department.
    assert test.products == 40
    assert test.accuracy == test.department_accuracy == pytest.approx(30 / 40)
    assert test.accuracy_within == 1.0
    assert evaluation.combination.aisle_temperature < 0.5  # all validation predictions are correct
    assert aisles.labels == dict.fromkeys(LABELS, ("end", "front"))
    assert sum(row.support for row in aisles.aisles) == 40
    assert sum(each.products for each in aisles.confusions) == 10
    assert 0 < aisles.linear.accuracy <= 1
    table = pd.read_parquet(two_levels.out / "predictions.parquet")
    assert (table["predicted_aisle"] == table["product_name"].map(aisle_of)).all()
    assert (table["aisle_probability"] <= table["probability"] + 1e-12).all()
    recovered = pd.read_csv(two_levels.out / "recovered.csv")
    assert recovered["suggested_aisle"].tolist() == ["end", "front"]


def test_only_the_selected_classifier_has_a_temperature_of_aisles(two_levels):
    evaluation = two_levels.run(strategy="auto")
    temperatures = {
        name: each.combination.aisle_temperature for name, each in evaluation.classifiers.items()
    }
    selected = evaluation.combination.strategy
    assert selected in ("adapter", "ensemble")
    assert temperatures.pop(selected) == evaluation.combination.aisle_temperature < 0.5
    assert set(temperatures.values()) == {1.0}


def test_products_without_a_known_aisle_count_for_the_department_only(two_levels):
    table = two_levels.table("test")
    table.loc[:9, "aisle"] = ""
    table.loc[10, "aisle"] = "not in training"
    two_levels.replace("test", table)
    evaluation = two_levels.run()
    assert evaluation.metrics.test.products == 40
    assert evaluation.aisles.metrics.test.products == 30
    (row,) = [row for row in evaluation.aisles.aisles if row.aisle == "not in training"]
    assert (row.support, row.recall, row.precision) == (1, 0.0, None)


def test_aisle_metrics_are_none_without_known_aisles(two_levels):
    for side in SIDES:
        two_levels.replace(side, two_levels.table(side).assign(aisle=""))
    evaluation = two_levels.run()
    aisles = evaluation.aisles
    assert dict(aisles.metrics) == {"train": None, "validation": None, "test": None}
    assert evaluation.combination.aisle_temperature == 1.0
    assert (aisles.linear, aisles.aisles) == (None, ())
    assert "<h2>Aisles</h2>" not in (two_levels.out / "report.html").read_text()


def test_evaluation_is_deterministic_except_for_measured_time(stage, tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(predictions, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    again = tmp_path / "again"
    again.mkdir()
    stage.run()
    stage.run(out=again)
    assert tree_digests(stage.out) == tree_digests(again)


def test_champion_with_other_labels_is_compared_by_name(stage, scorers, tmp_path):
    bundle = make_bundle(tmp_path / "champion")
    scorers[bundle.path] = NounScorer(labels=["produce", "pets", "bakery"])
    comparison = stage.run(Champion(bundle, str(bundle.path))).champion
    assert comparison.digest == bundle.digest
    assert comparison.products == comparison.new_products.products == 40
    assert comparison.accuracy < comparison.paired.model_accuracy
    assert comparison.paired.only_model_right > 0


def test_no_unlabelled_products_give_an_empty_table(stage):
    stage.replace("unlabelled", stage.table("unlabelled").head(0))
    stage.run()
    assert pd.read_csv(stage.out / "recovered.csv").empty


@pytest.mark.parametrize("side", SIDES)
def test_empty_side_is_rejected(stage, side):
    stage.replace(side, stage.table(side).head(0))
    with pytest.raises(CatalogueError, match=f"no {side} products"):
        stage.run()


def test_single_training_department_is_rejected(stage):
    stage.replace("train", products().assign(department="produce"))
    with pytest.raises(CatalogueError, match="one department"):
        stage.run()


def test_department_that_is_not_a_label_of_the_model_is_rejected(stage, scorers):
    scorers[stage.model] = NounScorer(labels=["bakery", "produce"])
    with pytest.raises(ModelError, match="dairy eggs"):
        stage.run()


def test_score_that_is_not_finite_fails_the_stage(stage, scorers):
    class NanScorer(NounScorer):
        def log_probabilities(self, names, progress=None):
            logs = super().log_probabilities(names, progress)
            logs[0, 0] = np.nan
            return logs

    scorers[stage.model] = NanScorer()
    with pytest.raises(FloatingPointError):
        stage.run()
    assert not (stage.out / "evaluation.json").exists()
