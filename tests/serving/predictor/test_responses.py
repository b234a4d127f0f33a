"""What a client sees of a bundle with two levels: the aisle beside the department, and no more."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from prometheus_client import CollectorRegistry
from schemathesis import GenerationMode, openapi

from grocer.errors import ModelError
from grocer.inference.scores import Scores
from grocer.release.bundle import Bundle
from serving.predictor.metrics import Metrics
from serving.predictor.model import Predictor
from tests.fixtures.artifacts import AISLES, LABELS
from tests.fixtures.predictor import StubScorer
from tests.serving.conftest import Running

INFER = "/v2/models/grocer/infer"
NAMES = [f"product {number}" for number in range(12)]


@pytest.fixture(scope="module")
def scored(levelled_bundle: Bundle) -> Scores:
    """The scores of the stub scorer."""
    return StubScorer(LABELS, leaves=levelled_bundle.leaves).predict(NAMES)


def outputs_of(server: Running, **more: object) -> dict[str, dict]:
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [len(NAMES)], "data": NAMES}
    answer = server.post(INFER, json={"inputs": [tensor], **more})
    assert answer.status_code == 200, answer.text
    return {output["name"]: output for output in answer.json()["outputs"]}


def test_v1_names_the_likeliest_aisle_of_the_department(
    levelled: Running, levelled_bundle: Bundle, scored: Scores
) -> None:
    answer = levelled.predict(*NAMES).json()["predictions"]
    rows = zip(answer, scored.predicted_labels, scored.leaf_probabilities, strict=True)
    for prediction, department, shares in rows:
        assert prediction["department"] == department
        assert prediction["aisle_probability"] == pytest.approx(shares.max(), abs=1e-6)
        assert prediction["aisle_probability"] <= prediction["probability"]
        expected = None if department == "bakery" else levelled_bundle.leaves[shares.argmax()][1]
        assert prediction["aisle"] == expected
    assert {prediction["department"] for prediction in answer} == set(LABELS)


def test_v2_says_the_same_as_v1(levelled: Running) -> None:
    first = levelled.predict(*NAMES).json()["predictions"]
    outputs = outputs_of(levelled)
    assert list(outputs)[-2:] == ["aisle", "aisle_probability"]
    assert outputs["aisle"]["data"] == [prediction["aisle"] or "" for prediction in first]
    assert outputs["aisle"]["datatype"] == "BYTES"
    shares = outputs["aisle_probability"]
    assert (shares["datatype"], shares["shape"]) == ("FP32", [len(NAMES)])
    assert shares["data"] == pytest.approx([p["aisle_probability"] for p in first], abs=1e-6)
    told = levelled.get("/v2/models/grocer").json()["outputs"]
    assert [output["name"] for output in told] == list(outputs)


def test_the_aisle_alone_may_be_asked_for(levelled: Running) -> None:
    assert list(outputs_of(levelled, outputs=[{"name": "aisle"}])) == ["aisle"]


def test_an_unsure_aisle_is_left_open_beside_a_sure_department(levelled: Running) -> None:
    answer = levelled.predict(*NAMES, min_probability=0.6).json()["predictions"]
    kinds = {(p["department"] is not None, p["aisle"] is not None) for p in answer}
    assert (True, False) in kinds
    assert (False, True) not in kinds
    assert all(p["aisle_probability"] >= 0.6 for p in answer if p["aisle"])


def test_explanations_and_metrics_are_about_departments(levelled: Running, scored: Scores) -> None:
    answer = levelled.post("/v1/models/grocer:explain", json={"instances": NAMES[:2]})
    told = [each["department"] for each in answer.json()["explanations"]]
    assert told == scored.predicted_labels[:2]
    lines = levelled.get("/metrics").text.splitlines()
    counted = [line for line in lines if line.startswith("grocer_predictions_total")]
    assert counted
    known = {aisle for aisles in AISLES.values() for aisle in aisles}
    assert not any(aisle in line for line in counted for aisle in known)


def test_a_bundle_of_one_level_knows_no_aisle(server: Running) -> None:
    (answer,) = server.predict("Milk").json()["predictions"]
    assert set(answer) == {"department", "probability", "alternatives"}
    tensor = {"name": "product_name", "datatype": "BYTES", "shape": [1], "data": ["Milk"]}
    refused = server.post(INFER, json={"inputs": [tensor], "outputs": [{"name": "aisle"}]})
    assert (refused.status_code, "outputs[0].name: one of" in refused.text) == (400, True)
    assert "aisle" not in server.get("/openapi.json").text


def test_the_openapi_document_holds_for_two_levels(levelled: Running) -> None:
    schema = openapi.from_dict(levelled.get("/openapi.json").json())
    schema.config.update(base_url=levelled.url)
    asked = [found.ok() for found in schema.get_all_operations()]
    asked = [operation for operation in asked if operation.method == "post"]
    assert len(asked) == 3
    for operation in asked:

        @given(operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
        @settings(max_examples=25, suppress_health_check=list(HealthCheck))
        def conforms(case: object) -> None:
            case.call_and_validate()

        conforms()


def test_a_scorer_of_other_aisles_than_the_bundle_names_is_refused(
    levelled_bundle: Bundle,
) -> None:
    registry = CollectorRegistry()
    watched = Metrics(levelled_bundle, low_confidence=0.5, window=10, registry=registry)
    exchanged = levelled_bundle.leaves[::-1]
    failures: list[BaseException] = []

    async def load() -> None:
        failed = asyncio.Event()
        predictor = Predictor(
            levelled_bundle,
            levelled_bundle.config.serving,
            watched,
            lambda bundle: StubScorer(bundle.labels, leaves=exchanged),
            lambda error: (failures.append(error), failed.set()),
        )
        predictor.start()
        await asyncio.wait_for(failed.wait(), 60)

    asyncio.run(load())
    (error,) = failures
    assert isinstance(error, ModelError)
    assert "labels.json or aisles.json names others than bundle.json does" in str(error)
