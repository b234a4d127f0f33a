"""The linear model: learns departments, is deterministic, and its file is validated."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from grocer.errors import ModelError
from grocer.model.linear import classifier
from grocer.model.linear.classifier import C_GRID, FILE, LinearModel, fit_linear
from tests.fixtures.predictions import LABELS, products

TABLE = products().sample(frac=1, random_state=0)
NAMES, DEPARTMENTS = TABLE["product_name"].tolist(), TABLE["department"].tolist()


def fit(labels: tuple[str, ...] = LABELS, step: int = 3) -> LinearModel:
    return fit_linear({"train": TABLE[::step], "validation": TABLE[1::3]}, labels)


@pytest.fixture(scope="module")
def model() -> LinearModel:
    return fit()


def test_model_predicts_names_that_it_has_not_seen(model: LinearModel) -> None:
    predicted = model.log_probabilities(NAMES[2::3]).argmax(axis=1)
    right = [LABELS[i] == d for i, d in zip(predicted, DEPARTMENTS[2::3], strict=True)]
    assert np.mean(right) > 0.6
    assert model.c in C_GRID


def test_probabilities_sum_to_one_and_do_not_depend_on_the_batch(model: LinearModel) -> None:
    names = [*NAMES, "", "żółw"]
    together = model.log_probabilities(names)
    assert np.isfinite(together).all()
    assert np.exp(together).sum(axis=1) == pytest.approx(np.ones(len(names)))
    alone = np.concatenate([model.log_probabilities([name]) for name in names])
    assert (together == alone).all()
    assert model.log_probabilities([]).shape == (0, len(LABELS))


def test_label_without_training_products_gets_the_lowest_probability() -> None:
    widened = fit((LABELS[0], "pets", *LABELS[1:]))
    logs = widened.log_probabilities(NAMES[:5])
    assert (logs.argmin(axis=1) == 1).all()
    assert np.exp(logs[:, 1]) == pytest.approx(np.full(5, classifier.FLOOR / 4))


def test_two_labels() -> None:
    rows = TABLE[TABLE["department"] != "produce"]
    two = fit_linear({"train": rows[::2], "validation": rows[1::2]}, LABELS[:2])
    predicted = two.log_probabilities(rows["product_name"][1::2].tolist()).argmax(axis=1)
    expected = [LABELS.index(department) for department in rows["department"][1::2]]
    assert np.mean(predicted == expected) > 0.8


def test_single_training_label_is_always_predicted() -> None:
    sides = {"train": TABLE[:2].assign(department="dairy eggs"), "validation": TABLE[-1:]}
    constant = fit_linear(sides, LABELS)
    assert constant.log_probabilities(["Bread"]).argmax() == LABELS.index("dairy eggs")


def test_names_without_features_give_the_frequencies_of_the_labels() -> None:
    train = pd.DataFrame(
        {"product_name": ["", " ", ""], "department": ["bakery", "produce", "produce"]}
    )
    prior = fit_linear({"train": train, "validation": TABLE[-1:]}, LABELS)
    shares = np.exp(prior.log_probabilities(["Milk"])[0])
    assert shares == pytest.approx([1 / 3, 0, 2 / 3], abs=1e-5)


def test_larger_c_is_tried_until_the_validation_loss_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([0.5, 0.4, 0.45, 0.3])
    monkeypatch.setattr(classifier, "calibrated_log_loss", lambda *_: next(losses))
    assert fit().c == C_GRID[1]


def test_model_is_read_as_written_and_fitted_deterministically(
    model: LinearModel, tmp_path: Path
) -> None:
    model.save(tmp_path)
    written = (tmp_path / FILE).read_bytes()
    restored = LinearModel.load(tmp_path)
    assert (restored.labels, restored.c) == (model.labels, model.c)
    assert (restored.log_probabilities(NAMES) == model.log_probabilities(NAMES)).all()
    fit().save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == written


def test_labels_may_hold_any_character(tmp_path: Path) -> None:
    labels = ("a\nb", "crème", '"')
    odd = TABLE.assign(department=TABLE["department"].map(dict(zip(LABELS, labels, strict=True))))
    fit_linear({"train": odd, "validation": odd}, labels).save(tmp_path)
    assert LinearModel.load(tmp_path).labels == labels


def test_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"linear\.npz: file not found"):
        LinearModel.load(tmp_path)


@pytest.mark.parametrize(
    ("cut", "flipped"),
    [(0, None), (10, None), (1000, None), (-10, None), (None, 0.3), (None, 0.6), (None, 0.9)],
)
def test_truncated_or_changed_file_is_reported(
    model: LinearModel, tmp_path: Path, cut: int | None, flipped: float | None
) -> None:
    model.save(tmp_path)
    content = bytearray((tmp_path / FILE).read_bytes())
    if flipped is not None:
        content[int(flipped * len(content))] ^= 0xFF
    (tmp_path / FILE).write_bytes(content[:cut])
    with pytest.raises(ModelError, match="not a valid linear model"):
        LinearModel.load(tmp_path)


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path / FILE) as archive:
        return dict(archive)


def utf8(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("c", None, "arrays"),
        ("coefficients", lambda each: each.astype(np.float64), "float64"),
        ("coefficients", lambda each: each[:, :2], "shape"),
        ("coefficients", lambda each: each * np.float32("nan"), "NaN or Inf"),
        ("idf", lambda each: each[1:], "shape"),
        ("intercepts", lambda each: each[1:], "shape"),
        ("words", lambda each: each[: len(each) // 2], "shape"),
        ("words", lambda each: np.full_like(each, 0xFF), "utf-8"),
        ("labels", lambda each: utf8('["bakery"]'), "shape"),
        ("labels", lambda each: utf8('["bakery", "bakery", "produce"]'), "distinct"),
        ("labels", lambda each: utf8("[1, 2, 3]"), "labels"),
        ("labels", lambda each: utf8("{"), "Expecting property name"),
    ],
)
def test_inconsistent_arrays_are_rejected(
    model: LinearModel, tmp_path: Path, name: str, change: Any, problem: str
) -> None:
    model.save(tmp_path)
    content = arrays(tmp_path)
    if change is None:
        del content[name]
    else:
        content[name] = change(content[name])
    np.savez(tmp_path / FILE, **content)
    with pytest.raises(ModelError, match=problem) as caught:
        LinearModel.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_loaded(model: LinearModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    content = arrays(tmp_path) | {"labels": np.array([{}], dtype=object)}
    np.savez(tmp_path / FILE, **content)
    with pytest.raises(ModelError, match="allow_pickle"):
        LinearModel.load(tmp_path)
