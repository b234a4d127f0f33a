"""`RunConfig` is frozen and strict, and every mistake is reported in one line."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from grocer.config.recipes import RECIPES, recipe
from grocer.config.removed import REMOVED
from grocer.config.run import RunConfig
from grocer.errors import ConfigError


@pytest.mark.parametrize("name", RECIPES)
def test_json_round_trip(name: str) -> None:
    config = recipe(name)
    assert config.recipe == name
    again = RunConfig.from_json(config.to_json())
    assert (again, again.digest) == (config, config.digest)


def test_configuration_is_immutable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe("tiny").gate.min_accuracy = 0.0


@pytest.mark.parametrize(
    ("setting", "section", "field", "value"),
    [
        ("gate.min_accuracy=0.9", "gate", "min_accuracy", 0.9),
        ("gate.min_accuracy=1", "gate", "min_accuracy", 1.0),
        ('gate.baselines=["linear"]', "gate", "baselines", ("linear",)),
        ("base.source=/models/llama", "base", "source", "/models/llama"),
        ("cluster.model_cpu=1", "cluster", "model_cpu", "1"),
        ("cluster.data_cpu=0.5", "cluster", "data_cpu", "0.5"),
        ("cluster.model_memory=1000000000", "cluster", "model_memory", "1000000000"),
        ("train.activation_checkpointing=true", "train", "activation_checkpointing", True),
    ],
)
def test_setting_changes_one_field(setting: str, section: str, field: str, value: object) -> None:
    before = recipe("tiny")
    after = before.with_settings([setting])
    assert getattr(getattr(after, section), field) == value
    assert after.digest != before.digest


def test_any_column_key_enables_the_column_mapping() -> None:
    columns = recipe("tiny").with_settings(["data.columns.product_name=title"]).data.columns
    assert (columns.product_name, columns.department) == ("title", "department")


@pytest.mark.parametrize(
    ("text", "name"), [("2025", "2025"), ("true", "true"), ('"2025"', "2025"), ("null", None)]
)
def test_column_may_be_named_by_a_number(text: str, name: str | None) -> None:
    columns = recipe("tiny").with_settings([f"data.columns.purchases={text}"]).data.columns
    assert columns.purchases == name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["gate.min_acuracy=0.9"], "--set gate.min_acuracy: no such key; gate has baselines"),
        (["gates.x=1"], "--set gates.x: no such key; the configuration has base"),
        (["gate=3"], "gate: Input should be an object"),
        (["gate.min_accuracy"], "expected section.key=value"),
        (["gate.min_test_products=1.5"], "Input should be a valid integer"),
        (["gate.min_test_products=many"], "found 'many'"),
        (["cluster.model_cpu=true"], "cluster.model_cpu: Input should be a valid string"),
        (["train.checkpoints="], "train.checkpoints: empty; expected a value, or null"),
        (["evaluation.confidence=0.99999"], "less than or equal to 0.9999"),
        (["train.seed=-1"], "train.seed: Input should be greater than or equal to 0"),
        (["train.learning_rate=Infinity"], "train.learning_rate: Input should be a finite number"),
        (["train.optim=sgd"], "Input should be 'paged_adamw_32bit'"),
        (["data.columns.colour=x"], "no such key; data.columns has aisle, department, product_id"),
        (["catalogue.unlabelled=other"], "(found 'other'); a list is written as JSON"),
        (["catalogue.levels=3"], "catalogue.levels: Input should be 1 or 2"),
        (["catalogue.levels=2", "catalogue.label=aisle"], "requires catalogue.label=department"),
        (["catalogue.levels=2", "predictor.strategy=linear"], "linear does not predict aisles"),
        (["catalogue.levels=2", "predictor.strategy=cascade"], "cascade does not predict aisles"),
        (["train.fsdp=true"], "train.fsdp requires train.nodes or train.processes_per_node"),
        (
            ["train.fsdp=true", "train.nodes=2", "train.optim=adamw_8bit"],
            "train.fsdp requires train.optim=adamw_torch",
        ),
        (["deploy.store=/tmp"], "(found '/tmp'). Where KServe finds the bundles: an object store"),
        (["split.test=0.45", "split.validation=0.45"], "leave less than 20 % for training"),
    ],
)
def test_wrong_setting_is_reported_in_one_line(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe("tiny").with_settings(settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", REMOVED)
def test_removed_setting_is_rejected_with_its_replacement(key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe("tiny").with_settings([f"{key}=secret"])
    assert str(caught.value) == f"--set {key}: removed; {REMOVED[key]}"

    tree: dict[str, Any] = json.loads(recipe("tiny").to_json())
    section, _, name = key.partition(".")
    tree[section][name] = "secret"
    with pytest.raises(ConfigError) as caught:
        RunConfig.from_json(json.dumps(tree))
    assert str(caught.value) == f"{key}: removed; {REMOVED[key]}"


@pytest.mark.parametrize("replacement", REMOVED.values())
def test_replacements_name_existing_settings(replacement: str) -> None:
    tree = json.loads(recipe("tiny").to_json())
    for word in replacement.replace(";", " ").replace(":", " ").replace("=", " ").split():
        section, dot, name = word.rstrip(".,").partition(".")
        if dot and section in tree:
            assert name in tree[section]


def test_configuration_of_an_earlier_version_is_one_short_line() -> None:
    tree: dict[str, Any] = json.loads(recipe("tiny").to_json())
    for key in REMOVED:
        section, _, name = key.partition(".")
        tree[section][name] = 1
    with pytest.raises(ConfigError, match=f"and {len(REMOVED) - 3} more$") as caught:
        RunConfig.from_json(json.dumps(tree))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["adapter", "ensemble", "auto"])
def test_two_levels_allow_strategies_that_predict_aisles(strategy: str) -> None:
    settings = ["catalogue.levels=2", f"predictor.strategy={strategy}"]
    assert recipe("tiny").with_settings(settings).predictor.strategy == strategy


def test_unknown_recipe_lists_the_available_ones() -> None:
    with pytest.raises(ConfigError, match=f"no such recipe; available: {', '.join(RECIPES)}"):
        recipe("tinny")


@pytest.mark.parametrize("value", ["often", "0"])
def test_value_of_no_allowed_type_is_one_problem(value: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^train\.num_train_epochs: .*, or 'auto' \(found"
    ) as error:
        recipe("smollm2").with_settings([f"train.num_train_epochs={value}"])
    assert str(error.value).count("num_train_epochs") == 1


@pytest.mark.parametrize(
    ("key", "protocol"),
    [
        ("deploy.store", "s3"),
        ("train.checkpoints", "gs"),
        ("data.corrections", "s3"),
        ("deploy.address", "https"),
    ],
)
@pytest.mark.parametrize("part", ["user:hun/ter2@bucket/x", "bucket/x?token=hunter2"])
def test_address_with_credentials_is_rejected(key: str, protocol: str, part: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: .*credentials") as caught:
        recipe("tiny").with_settings([f"{key}={protocol}://{part}"])
    assert "ter2" not in str(caught.value)
