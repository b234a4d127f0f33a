"""Comparisons with the champion are counted beside it, and its new products are found."""

import boto3
import numpy as np
import pandas as pd
import pytest

from grocer.artifacts.evaluation import EvaluationInputs
from grocer.artifacts.metrics import ComparisonNumber
from grocer.config.recipes import tiny
from grocer.config.stages import PredictorConfig
from grocer.errors import OutputError
from grocer.evaluation import champion as comparing
from grocer.evaluation.champion import Champion
from grocer.evaluation.predictions import Predictions
from grocer.inference.scores import Scores
from grocer.release import registry
from grocer.release.bundle import write_bundle
from tests.fixtures.artifacts import make_bundle, write_artifacts

EYE = np.eye(2)
LABELS = ("bakery", "produce")


@pytest.fixture
def champion(tmp_path, monkeypatch):
    """A champion that predicts `bakery` for every product."""
    monkeypatch.setattr(comparing, "predict_labels", lambda _, names, __: ["bakery"] * len(names))
    bundle = make_bundle(tmp_path / "bundles")
    return Champion(bundle, str(bundle.path))


def candidate(names=("bread", "milk", "milks")):
    """A classifier that is correct on every test product; the bundle knows milk."""
    table = pd.DataFrame(
        {
            "product_name": names,
            "normalised_name": names,
            "department": ["bakery" if name == "bread" else "produce" for name in names],
        }
    )
    truth = [LABELS.index(each) for each in table["department"]]
    return Predictions(table=table, scores=Scores.flat(LABELS, EYE[truth]))


def inputs(model="a"):
    return EvaluationInputs(model=model * 64, splits="b" * 64)


def test_new_products_are_compared_separately(champion):
    compared = champion.compare(inputs(), candidate(), tiny())
    assert compared.digest == champion.bundle.digest
    assert (compared.paired.products, compared.paired.only_model_right) == (3, 2)
    assert (compared.new_products.products, compared.new_products.only_model_right) == (1, 0)


def test_without_new_products_there_is_no_separate_test(champion):
    assert champion.compare(inputs(), candidate(["milk"]), tiny()).new_products is None


def test_every_other_comparison_is_counted_once(champion):
    run = tiny()
    other = run.model_copy(update={"predictor": PredictorConfig(strategy="linear")})
    numbers = [
        champion.compare(inputs(model), candidate(), config).number.total
        for model, config in [("a", run), ("a", run), ("c", run), ("a", other), ("c", run)]
    ]
    assert numbers == [1, 1, 2, 3, 3]


def test_comparison_that_fails_afterwards_counts(champion, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "predict_labels", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            champion.compare(inputs("c"), candidate(), tiny())
    assert champion.compare(inputs(), candidate(), tiny()).number.total == 2


def test_count_continues_from_that_of_the_champion(champion, tmp_path):
    artifacts = write_artifacts(tmp_path / "next", champion="d" * 64)
    bundle = write_bundle(**artifacts, config=tiny(), root=tmp_path / "bundles")
    number = Champion(bundle, str(bundle.path)).compare(inputs(), candidate(), tiny()).number
    assert number == ComparisonNumber(total=2, with_champion=1)


def test_count_is_beside_a_champion_in_object_storage(champion, s3_environment):
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="champions")
    remote = Champion(champion.bundle, registry.publish(champion.bundle, "s3://champions/all"))
    for model in "aca":
        number = remote.compare(inputs(model), candidate(), tiny()).number
    assert number == ComparisonNumber(total=2, with_champion=2)
    keys = [each["Key"] for each in client.list_objects_v2(Bucket="champions")["Contents"]]
    folder = f"all/.comparisons/{champion.bundle.digest}/"
    assert sum(key.startswith(folder) for key in keys) == 2
    assert registry.open_bundle(remote.address, champion.bundle.path.parent / "again")


def test_champion_in_an_oci_registry_is_not_counted(champion):
    address = f"oci://registry.local/bundles:{champion.bundle.digest}"
    assert Champion(champion.bundle, address).compare(inputs(), candidate(), tiny()).number is None


def test_comparison_that_cannot_be_recorded_is_an_error(champion):
    (champion.bundle.path.parent / ".comparisons").write_text("")
    with pytest.raises(OutputError, match=r"champion: cannot write .*\.comparisons"):
        champion.compare(inputs(), candidate(), tiny())
