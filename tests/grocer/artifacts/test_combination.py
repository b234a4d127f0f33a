"""A combination's weights are consistent with its strategy."""

from typing import Any

import pytest
from pydantic import ValidationError

from grocer.artifacts.combination import Combination

NO_WEIGHTS = {
    "adapter": 0.0,
    "linear": 0.0,
    "linear_alone": 0.0,
    "threshold": None,
    "aisle_temperature": 1.0,
}
VALID = {
    "adapter": {"adapter": 0.8, "aisle_temperature": 2.0},
    "ensemble": {"adapter": 0.8, "linear": 0.5, "aisle_temperature": 2.0},
    "cascade": {"adapter": 0.8, "linear": 0.5, "linear_alone": 1.2, "threshold": 0.9},
    "linear": {"linear": 1.2},
}


def combination(strategy: str, **changes: Any) -> Combination:
    return Combination(**NO_WEIGHTS | VALID[strategy] | {"strategy": strategy} | changes)


@pytest.mark.parametrize(
    ("strategy", "adapter", "linear"),
    [
        ("adapter", True, False),
        ("ensemble", True, True),
        ("cascade", True, True),
        ("linear", False, True),
    ],
)
def test_each_strategy_has_valid_weights_and_models(
    strategy: str, adapter: bool, linear: bool
) -> None:
    made = combination(strategy)
    assert Combination.model_validate_json(made.model_dump_json()) == made
    assert (made.uses_adapter, made.uses_linear) == (adapter, linear)


@pytest.mark.parametrize("weights", [{"adapter": 0.8, "linear": 0.0}, {"adapter": 0.0}])
def test_ensemble_may_give_one_model_no_weight(weights: dict[str, float]) -> None:
    assert combination("ensemble", **weights).strategy == "ensemble"


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("adapter", {"adapter": 0.0}),
        ("adapter", {"linear": 0.1}),
        ("adapter", {"linear_alone": 0.1}),
        ("adapter", {"threshold": 0.9}),
        ("ensemble", {"adapter": 0.0, "linear": 0.0}),
        ("ensemble", {"adapter": -0.1}),
        ("ensemble", {"linear": float("nan")}),
        ("ensemble", {"threshold": 0.9}),
        ("cascade", {"linear_alone": 0.0}),
        ("cascade", {"threshold": None}),
        ("cascade", {"threshold": 1.1}),
        ("cascade", {"aisle_temperature": 2.0}),
        ("linear", {"linear": 0.0}),
        ("linear", {"adapter": 0.1}),
        ("linear", {"aisle_temperature": 2.0}),
        ("linear", {"aisle_temperature": 0.0}),
    ],
)
def test_inconsistent_weights_are_rejected(strategy: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        combination(strategy, **changes)
