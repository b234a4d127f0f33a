"""Scores: predictions, ranking, slices, and consistent shapes."""

import numpy as np
import pytest

from grocer.inference.scores import Scores

LABELS = ("bakery", "produce")
LEAVES = (("produce", "fruit"), ("produce", "herbs"))


@pytest.fixture
def scores() -> Scores:
    probabilities = np.array([[0.7, 0.3], [0.4, 0.6]])
    return Scores(LABELS, LEAVES, probabilities, np.array([[0.0, 0.0], [0.1, 0.5]]))


def test_predictions_and_confidence(scores: Scores) -> None:
    assert scores.predicted.tolist() == [0, 1]
    assert scores.predicted_labels == ["bakery", "produce"]
    assert scores.confidence.tolist() == [0.7, 0.6]


def test_label_without_aisles_has_no_predicted_aisle(scores: Scores) -> None:
    assert scores.predicted_aisles == ["", "herbs"]
    assert scores.aisle_confidence.tolist() == [0.0, 0.5]


def test_flat_scores_have_no_aisles() -> None:
    scores = Scores.flat(LABELS, np.array([[0.7, 0.3]]))
    assert (scores.leaves, scores.predicted_aisles) == ((), [""])
    assert scores.aisle_confidence.tolist() == [0.0]


def test_scores_without_products() -> None:
    scores = Scores.flat(LABELS, np.empty((0, 2)))
    assert (len(scores), scores.predicted_labels, scores.predicted_aisles) == (0, [], [])


def test_top_is_ranked_and_keeps_label_order_in_ties() -> None:
    scores = Scores.flat(("a", "b", "c"), np.array([[0.25, 0.5, 0.25]]))
    order, values = scores.top(2)
    assert (order.tolist(), values.tolist()) == ([[1, 0]], [[0.5, 0.25]])
    assert scores.top(9)[0].tolist() == [[1, 0, 2]]


def test_slices_and_concatenation_are_inverse(scores: Scores) -> None:
    joined = Scores.concatenate([scores[:1], scores[1:]])
    assert joined.leaves == scores.leaves
    np.testing.assert_array_equal(joined.probabilities, scores.probabilities)
    np.testing.assert_array_equal(joined.leaf_probabilities, scores.leaf_probabilities)


@pytest.mark.parametrize("shapes", [((2, 3), (2, 2)), ((2, 2), (2, 3)), ((2, 2), (1, 2))])
def test_shapes_must_fit_labels_and_leaves(shapes: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 2\) and \(2, 2\)"):
        Scores(LABELS, LEAVES, np.zeros(shapes[0]), np.zeros(shapes[1]))
