"""Protects the configuration: frozen, strict, whole; a mistake in it is one line."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from grocer.config.recipes import RECIPES, recipe
from grocer.config.run import RunConfig
from grocer.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    again = RunConfig.from_json(config.to_json())
    assert (again, again.digest) == (config, config.digest)


def test_nothing_changes_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe("tiny").gate.min_accuracy = 0.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("gate.min_accuracy=0.9", "gate", "min_accuracy", 0.9),
        ("gate.min_accuracy=1", "gate", "min_accuracy", 1.0),
        ('gate.baselines=["linear"]', "gate", "baselines", ("linear",)),
        ("base.source=/models/llama", "base", "source", "/models/llama"),
        ("cluster.model_cpu=1", "cluster", "model_cpu", "1"),
        ("cluster.data_cpu=0.5", "cluster", "data_cpu", "0.5"),
        ("cluster.data_memory=1000000000", "cluster", "data_memory", "1000000000"),
        ("train.activation_checkpointing=true", "train", "activation_checkpointing", True),
    ],
)
def test_a_setting_changes_one_field(setting: str, section: str, field: str, value: object) -> None:
    before = recipe("tiny")
    after = before.with_settings([setting])
    assert getattr(getattr(after, section), field) == value
    assert after.digest != before.digest


def test_a_column_mapping_begins_with_any_of_its_keys() -> None:
    columns = recipe("tiny").with_settings(["data.columns.product_name=title"]).data.columns
    assert columns is not None
    assert (columns.product_name, columns.department) == ("title", "department")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["gate.min_acuracy=0.9"], "no such key; gate has baselines"),
        (["gates.x=1"], "--set gates.x: no such key; the configuration has base"),
        (["gate=3"], "gate: Input should be an object"),
        (["gate.min_accuracy"], "expected section.key=value"),
        (["gate.min_test_products=1.5"], "Input should be a valid integer"),
        (["gate.min_test_products=many"], "given: 'many'"),
        (["cluster.model_cpu=true"], "cluster.model_cpu: Input should be a valid string"),
        (["train.optim=sgd"], "Input should be 'paged_adamw_32bit'"),
        (["data.columns.colour=x"], "no such key; data.columns has aisle, department, product_id"),
        (["catalogue.levels=3"], "catalogue.levels: Input should be 1 or 2"),
        (
            ["catalogue.levels=2", "catalogue.label=aisle"],
            "catalogue.levels=2 has the department first; leave catalogue.label",
        ),
        (["split.test=0.45", "split.validation=0.45"], "leave under 20 % for training"),
    ],
)
def test_a_wrong_setting_is_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe("tiny").with_settings(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="tinny: no such recipe; did you mean tiny"):
        recipe("tinny")


def test_every_field_says_what_it_is() -> None:
    for name, section in RunConfig.model_fields.items():
        fields = getattr(section.annotation, "model_fields", {})
        silent = [field for field, info in fields.items() if not info.description]
        assert not silent, f"{name}: add a docstring below {silent}"
