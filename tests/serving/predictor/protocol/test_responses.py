"""Responses of a bundle with aisles."""

import pytest

from grocer.inference.scores import Scores
from grocer.release.bundle import LoadedBundle
from tests.fixtures.artifacts import AISLES, LABELS
from tests.fixtures.predictor import StubScorer
from tests.fixtures.predictor_process import EXPLAIN, Running

NAMES = [f"product {number}" for number in range(12)]


@pytest.fixture(scope="module")
def scores(bundle_with_aisles: LoadedBundle) -> Scores:
    return StubScorer(LABELS, leaves=bundle_with_aisles.leaves).predict(NAMES)


def outputs_of(server: Running, **fields: object) -> dict[str, dict]:
    response = server.infer(*NAMES, **fields)
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def test_v1_returns_the_most_likely_aisle_of_the_department(
    server_with_aisles: Running, scores: Scores
) -> None:
    predictions = server_with_aisles.predict(*NAMES).json()["predictions"]
    for i, prediction in enumerate(predictions):
        assert prediction["department"] == scores.predicted_labels[i]
        assert prediction["aisle_probability"] == pytest.approx(
            scores.aisle_confidence[i], abs=1e-6
        )
        assert prediction["aisle_probability"] <= prediction["probability"]
        assert prediction["aisle"] == (scores.predicted_aisles[i] or None)
        assert (prediction["aisle"] is None) == (prediction["department"] == "bakery")
    assert {prediction["department"] for prediction in predictions} == set(LABELS)


def test_v2_is_equivalent_to_v1(server_with_aisles: Running) -> None:
    first = server_with_aisles.predict(*NAMES).json()["predictions"]
    outputs = outputs_of(server_with_aisles)
    assert list(outputs)[-2:] == ["aisle", "aisle_probability"]
    assert outputs["aisle"]["data"] == [prediction["aisle"] or "" for prediction in first]
    assert outputs["aisle"]["datatype"] == "BYTES"
    shares = outputs["aisle_probability"]
    assert (shares["datatype"], shares["shape"]) == ("FP32", [len(NAMES)])
    assert shares["data"] == pytest.approx([p["aisle_probability"] for p in first], abs=1e-6)
    metadata = server_with_aisles.get("/v2/models/grocer").json()["outputs"]
    assert [output["name"] for output in metadata] == list(outputs)


def test_aisle_can_be_requested_alone(server_with_aisles: Running) -> None:
    assert list(outputs_of(server_with_aisles, outputs=[{"name": "aisle"}])) == ["aisle"]


def test_aisle_can_be_null_while_the_department_is_not(server_with_aisles: Running) -> None:
    response = server_with_aisles.predict(*NAMES, min_probability=0.6).json()["predictions"]
    kinds = {(p["department"] is not None, p["aisle"] is not None) for p in response}
    assert (True, False) in kinds
    assert (False, True) not in kinds
    assert all(p["aisle_probability"] >= 0.6 for p in response if p["aisle"])


def test_explanations_and_metrics_ignore_aisles(
    server_with_aisles: Running, scores: Scores
) -> None:
    response = server_with_aisles.post(EXPLAIN, json={"instances": NAMES[:2]})
    departments = [each["department"] for each in response.json()["explanations"]]
    assert departments == scores.predicted_labels[:2]
    lines = server_with_aisles.get("/metrics").text.splitlines()
    predictions = [line for line in lines if line.startswith("grocer_predictions_total")]
    assert predictions
    names = {aisle for aisles in AISLES.values() for aisle in aisles}
    assert not any(aisle in line for line in predictions for aisle in names)


def test_bundle_without_aisles_has_no_aisle_outputs(server: Running) -> None:
    (response,) = server.predict("Milk").json()["predictions"]
    assert set(response) == {"department", "probability", "alternatives"}
    rejected = server.infer("Milk", outputs=[{"name": "aisle"}])
    assert (rejected.status_code, "outputs[0].name" in rejected.text) == (400, True)
    assert "aisle" not in server.get("/openapi.json").text
