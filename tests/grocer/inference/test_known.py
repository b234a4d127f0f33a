"""A second bulk run classifies only names that are new, and applies the labels of reviewers."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from grocer.errors import GrocerError, SourceError
from grocer.inference.sharded import classify_shard, merge_shards, shard_table
from grocer.release.bundle import LoadedBundle
from grocer.review.bulk import SUFFIX, write_bulk_queue
from tests.fixtures.corrections import correction, write_corrections
from tests.fixtures.predictor import StubScorer

NAMES = ["Milk", "Green Tea", "Crème", "", "Bread", "Oat Milk", "Old Kefir", "Old Milk"]
LIMIT = 0.6


class Bulk:
    """Bulk runs in one directory."""

    def __init__(self, folder: Path, bundle: LoadedBundle, suffix: str) -> None:
        self.folder, self.bundle, self.suffix = folder, bundle, suffix

    def run(self, out: str, names: list[str], **options: Any) -> tuple[pd.DataFrame, list[str]]:
        """Return the output by name, and the names that were scored."""
        source, result = self.folder / f"{out}-in.csv", self.folder / f"{out}{self.suffix}"
        pd.DataFrame({"product_name": names}).to_csv(source, index=False)
        settings = {"shards": 2, "min_probability": LIMIT} | options
        passes: list[list[str]] = []

        def load(bundle: LoadedBundle) -> StubScorer:
            scorer = StubScorer(bundle.labels)
            scorer.passes = passes
            return scorer

        shards = shard_table(str(source), str(result), str(self.bundle.path), **settings)
        for shard in shards:
            classify_shard(shard, load)
        merge_shards(shards)
        read = pd.read_csv if self.suffix == ".csv" else pd.read_parquet
        return read(result).set_index("product_name"), [name for each in passes for name in each]

    def address(self, out: str) -> str:
        return str(self.folder / f"{out}{self.suffix}")


@pytest.fixture(params=[".csv", ".parquet"])
def bulk(tmp_path: Path, bundle: LoadedBundle, request: pytest.FixtureRequest) -> Bulk:
    return Bulk(tmp_path, bundle, request.param)


def test_only_new_names_are_scored_and_corrections_are_final(bulk: Bulk) -> None:
    first, scored = bulk.run("first", NAMES)
    assert set(scored) == set(filter(None, NAMES))
    unsure = first[first["predicted_alternatives"].notna()]
    assert 0 < len(unsure) < 7
    assert unsure["predicted_department"].isna().all()
    name, label = unsure.index[0], bulk.bundle.labels[1]
    reviewed = correction(f"{name.upper()}!", label)
    corrections = write_corrections(str(bulk.folder / "corrections"), reviewed)
    options = {"previous": bulk.address("first"), "corrections": corrections}
    second, scored = bulk.run("second", [*NAMES, "New Cheese"], **options)
    assert scored == ["New Cheese"]
    assert second.loc[name, "predicted_department"] == label
    assert second.loc[name, "predicted_probability"] == 1.0
    others = [each for each in NAMES if each not in (name, "")]
    pd.testing.assert_frame_equal(second.loc[others], first.loc[others], check_dtype=False)
    # A correction that no longer applies is not kept as a prediction.
    third, scored = bulk.run("third", NAMES, previous=bulk.address("second"))
    assert name in scored
    pd.testing.assert_frame_equal(third, first, check_dtype=False)


def test_other_bundle_or_limit_classifies_every_name(bulk: Bulk, tmp_path_factory: Any) -> None:
    bulk.run("first", NAMES)
    previous = bulk.address("first")
    _, scored = bulk.run("second", NAMES, previous=previous, min_probability=0.5)
    assert len(scored) == 7
    other = json.loads(Path(f"{previous}.json").read_text()) | {"bundle": "0" * 64}
    Path(f"{previous}.json").write_text(json.dumps(other))
    _, scored = bulk.run("third", NAMES, previous=previous)
    assert len(scored) == 7


def test_changed_or_foreign_previous_output_is_rejected(bulk: Bulk) -> None:
    bulk.run("first", NAMES)
    previous = Path(bulk.address("first"))
    previous.write_bytes(previous.read_bytes() + b" ")
    with pytest.raises(SourceError, match="was changed"):
        bulk.run("second", NAMES, previous=str(previous))
    Path(f"{previous}.json").write_text("[]")
    with pytest.raises(GrocerError, match="output of bulk"):
        bulk.run("third", NAMES, previous=str(previous))


def test_rows_below_the_limit_are_a_review_queue(bulk: Bulk) -> None:
    table, _ = bulk.run("first", [*NAMES, "Old KEFIR!"])
    address = bulk.address("first")
    unsure = table[table["predicted_alternatives"].notna()]
    count = write_bulk_queue(address)
    queue = pd.read_csv(f"{address}{SUFFIX}")
    assert count == len(queue) <= len(unsure)
    assert set(queue["name"]) <= set(unsure.index)
    assert queue["value"].is_monotonic_decreasing
    best = {name: json.loads(text)[0][0] for name, text in unsure["predicted_alternatives"].items()}
    assert queue["suggestion"].tolist() == [best[name] for name in queue["name"]]


def test_run_without_limit_has_no_queue(bulk: Bulk) -> None:
    table, _ = bulk.run("first", NAMES, min_probability=0.0)
    assert "predicted_alternatives" not in table
    assert write_bulk_queue(bulk.address("first")) == 0
    assert not Path(f"{bulk.address('first')}{SUFFIX}").exists()
