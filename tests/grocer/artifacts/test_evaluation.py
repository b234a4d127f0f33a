"""The schema of an evaluation refuses missing, non-finite and out-of-range metrics."""

import json
import math

import pytest

from grocer.artifacts.evaluation import Evaluation
from grocer.errors import ArtifactError
from tests.fixtures.evaluations import (
    COMPLETE,
    NUMBERS,
    PATHS,
    SHARES,
    UNBOUNDED,
    changed,
    combination,
    evaluation,
    parents,
    parse,
    value_at,
)


def problems(content):
    with pytest.raises(ArtifactError) as caught:
        parse(content)
    return caught.value.problems


def test_valid_evaluation_is_read_as_written():
    assert json.loads(json.dumps(parse(COMPLETE).model_dump(mode="json"))) == COMPLETE


def test_evaluation_is_read_from_the_output_of_a_run(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        Evaluation.of_run(tmp_path)
    assert str(caught.value) == f"{tmp_path}: expected the output directory of grocer run"
    evaluated = tmp_path / "artifacts" / "evaluate"
    evaluated.mkdir(parents=True)
    (evaluated / Evaluation.FILE).write_text(json.dumps(COMPLETE))
    assert Evaluation.of_run(tmp_path).model_dump(mode="json") == COMPLETE


# Mappings keyed by name: the gate knows which names are required.
BY_NAME = {("baselines",), ("reference", "departments"), ("reference", "purchases")}
REQUIRED = [path for path in (*PATHS, *parents(PATHS)) if path[:-1] not in BY_NAME]


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
def test_missing_key_is_rejected(path):
    assert path[-1] in problems(changed(COMPLETE, path))[0]


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
def test_number_of_another_type_or_range_is_rejected(path):
    for value in (math.nan, math.inf, -math.inf, -1, "1", True, [], {}):
        assert problems(changed(COMPLETE, path, value))[0].startswith(".".join(path))


@pytest.mark.parametrize("path", SHARES, ids=".".join)
def test_share_is_from_zero_to_one(path):
    parse(changed(COMPLETE, path, 1))
    parse(changed(COMPLETE, path, 0))
    assert problems(changed(COMPLETE, path, 1.0000001))[0].startswith(".".join(path))


COUNTS = [path for path in NUMBERS if isinstance(value_at(COMPLETE, path), int)]
MAY_BE_ZERO = {"support", "only_model_right", "only_baseline_right", "purchase_rows"}


@pytest.mark.parametrize("path", COUNTS, ids=".".join)
def test_count_is_a_whole_number(path):
    parse(changed(COMPLETE, path, 1))
    assert problems(changed(COMPLETE, path, 1.0))
    if path[-1] in MAY_BE_ZERO:
        parse(changed(COMPLETE, path, 0))
    else:
        assert "greater than or equal to 1" in problems(changed(COMPLETE, path, 0))[0]


@pytest.mark.parametrize("labels", ["ab", {"a": 1}, ["a", 1], ["a", "a"], ["bulk"], []])
def test_labels_are_two_or_more_distinct_names(labels):
    assert problems(changed(COMPLETE, ("labels",), labels))[0].startswith("labels")


def test_departments_are_the_labels():
    content = changed(COMPLETE, ("labels",), ["bulk", "dairy", "toys"])
    assert "departments and labels differ: pets, toys" in problems(content)[0]


@pytest.mark.parametrize(
    "path",
    [path for path in UNBOUNDED if path[-1] in {"log_loss", "model_log_loss", "names_per_second"}],
    ids=".".join,
)
def test_log_loss_and_throughput_are_not_limited_to_one(path):
    parse(changed(COMPLETE, path, 7.5))


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "cascade", "linear"])
def test_every_classifier_is_required(strategy):
    content = changed(COMPLETE, ("classifiers", strategy))
    assert problems(content)[0] == f"classifiers: not measured: {strategy}"


def test_classifier_has_its_own_combination():
    content = changed(COMPLETE, ("classifiers", "cascade", "combination"), combination("ensemble"))
    assert problems(content)[0].startswith("classifiers.cascade: combination is that of another")


@pytest.mark.parametrize("strategy", ["ensemble", "cascade", "linear"])
def test_selected_combination_is_that_of_its_classifier(strategy):
    assert parse(evaluation(strategy=strategy)).selected.combination.strategy == strategy
    content = changed(evaluation(strategy=strategy), ("combination", "linear"), 0.25)
    assert problems(content)[0] == "combination differs from that in classifiers"


@pytest.mark.parametrize("value", ["auto", "majority", None, 1])
def test_unknown_strategy_is_rejected(value):
    content = changed(COMPLETE, ("combination", "strategy"), value)
    assert problems(content)[0].startswith("combination.strategy")
    content = changed(COMPLETE, ("selected_by",), value)
    assert problems(content)[0].startswith("selected_by")


@pytest.mark.parametrize(
    "matrix", [[[1, 2, 3]] * 2, [[1, 2]] * 3, [[1, 2, 3]] * 4, [[1, 2, 3], [1], [1, 2, 3]], []]
)
def test_confusion_matrix_is_square(matrix):
    content = changed(COMPLETE, ("confusion",), matrix)
    assert "confusion is not a 3 by 3 matrix" in problems(content)[0]


@pytest.mark.parametrize("cell", [True, -1, 0.5, None, "1"])
def test_confusion_matrix_holds_counts(cell):
    content = changed(COMPLETE, ("confusion",), [[95, 5, cell], [4, 92, 4], [6, 4, 90]])
    assert problems(content)[0].startswith("confusion.0.2")


@pytest.mark.parametrize("name", ["model", "splits"])
@pytest.mark.parametrize("digest", [None, 7, "", "a" * 63, "a" * 65, "A" * 64, "a" * 64 + "\n"])
def test_digest_has_64_hexadecimal_digits(name, digest):
    content = changed(COMPLETE, ("digests", name), digest)
    assert problems(content)[0].startswith(f"digests.{name}")
