"""The queue finds wrong labels on every side of the split, the most valuable product first."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.splits import Splits
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.errors import ArtifactError, TableError
from grocer.evaluation import predictions
from grocer.evaluation.run import run as evaluate
from grocer.review.queue import Candidate, build_queue, classified, run_candidates, suspected
from tests.fixtures.artifacts import write_model
from tests.fixtures.predictions import LABELS, NounScorer, products, write_splits


def candidate(
    name: str, uncertainty: float = 0.5, purchases: int = 10, source: str = "x"
) -> Candidate:
    alternatives = ((LABELS[0], 0.6), (LABELS[1], 0.4))
    return Candidate(name, source, "", alternatives, uncertainty, purchases)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output directory of a run in which a training product has a wrong label."""

    def load(model: Path, config: RunConfig, with_adapter: bool = True) -> NounScorer:
        return NounScorer(with_adapter=with_adapter)

    monkeypatch.setattr(predictions, "load_scorer", load)
    table = products()
    table.loc[30, "purchases"] = 1000
    assert table.loc[30, "product_name"] == "Golden Bread"
    table.loc[30, "department"] = "produce"
    artifacts = tmp_path / "run" / "artifacts"
    artifacts.mkdir(parents=True)
    splits = write_splits(artifacts / "build_dataset", table)
    model = write_model(tmp_path / "model", recipe("tiny"))
    (artifacts / "evaluate").mkdir()
    evaluate(Adapter.read(model), Splits.read(splits), recipe("tiny"), artifacts / "evaluate")
    return tmp_path / "run"


def test_wrong_labels_of_all_sides_come_first(run: Path) -> None:
    queue = build_queue(run_candidates(run)[0])
    assert (queue[0].name, queue[0].previous_label) == ("Golden Bread", "produce")
    assert queue[0].suggestion == "bakery"
    table = products()
    wrong = set(table["product_name"][np.arange(1, 121) % 12 == 0])
    suspects = sorted(queue, key=lambda each: -each.uncertainty)[:11]
    assert wrong <= {each.name for each in suspects}
    predicted = pd.read_parquet(run / "artifacts" / "evaluate" / "predictions.parquet")
    unseen = predicted[predicted["split"] != "train"].set_index("product_name")
    evaluated = (1.0 - unseen["department_probability"]).to_dict()
    assert evaluated.items() <= {each.name: each.uncertainty for each in queue}.items()
    assert len(queue) == 122  # with two unlabelled products
    unlabelled = [each for each in queue if each.source == "unlabelled"]
    assert {each.suggestion for each in unlabelled} == {"bakery", "dairy eggs"}
    assert all(each.previous_label == "" for each in unlabelled)


def test_run_without_predictions_is_one_line(run: Path) -> None:
    (run / "artifacts" / "evaluate" / "predictions.parquet").unlink()
    with pytest.raises(ArtifactError, match="predictions"):
        run_candidates(run)


def test_value_is_uncertainty_times_purchases() -> None:
    rows = (("a", 0.9, 10), ("b", 0.1, 1000), ("c", 1.0, 0), ("d", 0.8, 100))
    candidates = [candidate(*row) for row in rows]
    queue = build_queue(candidates)
    assert [each.name for each in queue] == ["b", "d", "a", "c"]
    assert [each.value for each in queue] == pytest.approx([100, 80, 9, 1])
    assert [each.name for each in build_queue(candidates, limit=2)] == ["b", "d"]
    queue = build_queue([*candidates, candidate("A!", 0.95, 1)], by_probability=True)
    assert [each.name for each in queue] == ["c", "A!", "d", "b"]


def test_names_are_listed_once_and_reviewed_ones_not_at_all() -> None:
    candidates = [candidate("Milk", 0.1), candidate("MILK!", 0.9, source="best"), candidate("Tea")]
    assert [each.source for each in build_queue(candidates)] == ["best", "x"]
    assert [each.name for each in build_queue(candidates, {"milk"})] == ["Tea"]


def test_models_have_not_seen_the_product() -> None:
    """A wrong label on every name of a family cannot hide itself."""
    table = products()
    twins = table["product_name"].str.contains("Brioche")
    table.loc[twins.idxmax(), "department"] = "produce"
    candidates = suspected(table, LABELS, 16.0)
    worst = max(candidates, key=lambda each: each.uncertainty if "Brioche" in each.name else 0)
    assert worst.previous_label == "produce"
    assert worst.suggestion == "bakery"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_classified_files(tmp_path: Path, suffix: str) -> None:
    ranked = '[["dairy eggs", 0.6], ["produce", 0.3]]'
    table = pd.DataFrame(
        {
            "product_name": ["Old Milk", "Old Kefir", "Old Quark", "", "Old Apple"],
            "purchases": ["5", "0", None, "1", "7"],
            "predicted_department": [None, None, None, None, "produce"],
            "predicted_probability": [0.6, 0.4, 0.4, None, 0.9],
            "predicted_alternatives": [ranked, ranked, ranked, None, None],
        }
    )
    path = tmp_path / f"out{suffix}"
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    milk, kefir, quark = classified(path, "product_name", 12)
    assert milk.alternatives == (("dairy eggs", 0.6), ("produce", 0.3))
    assert (milk.name, milk.uncertainty, milk.purchases) == ("Old Milk", pytest.approx(0.4), 5)
    assert (kefir.uncertainty, kefir.purchases) == (pytest.approx(0.6), 0)
    assert quark.purchases == 12


def test_other_tables_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("product_name,predicted_department,predicted_alternatives\nMilk,produce,\n")
    with pytest.raises(TableError, match="predicted_probability"):
        classified(path, "product_name")
    with pytest.raises(TableError, match=r"no column 'title'; found product_name.*; set --column"):
        classified(path, "title")
    columns = "product_name,predicted_department,predicted_probability,predicted_alternatives"
    path.write_text(f"{columns}\nMilk,,high,[]\n")
    with pytest.raises(TableError, match="high"):
        classified(path, "product_name")
