"""What a run is: one frozen `RunConfig`, typed, checked when it is built.

Unknown keys are refused; `--set section.key=value` changes one setting of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError, model_validator

from grocer.config.base import Section
from grocer.config.deployment import ClusterConfig, DeployConfig, ServingConfig
from grocer.config.stages import (
    BaseConfig,
    CatalogueConfig,
    ColumnMapping,
    DataConfig,
    EvaluationConfig,
    GatePolicy,
    LoraSettings,
    PromptConfig,
    SplitConfig,
    TinyConfig,
    TrainConfig,
    ValidationConfig,
)
from grocer.errors import ConfigError
from grocer.io.atomic import json_digest


class RunConfig(Section):
    """A whole run, as one value."""

    recipe: str
    """Name of the recipe that this began as."""
    data: DataConfig = DataConfig()
    validation: ValidationConfig = ValidationConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    split: SplitConfig = SplitConfig()
    prompt: PromptConfig = PromptConfig()
    base: BaseConfig = BaseConfig()
    tiny: TinyConfig = TinyConfig()
    lora: LoraSettings = LoraSettings()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    gate: GatePolicy = GatePolicy()
    serving: ServingConfig = ServingConfig()
    deploy: DeployConfig = DeployConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _sides_leave_training_data(self) -> RunConfig:
        if self.split.validation + self.split.test > 0.8:
            raise ValueError("split.validation + split.test leave under 20 % for training")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the whole configuration."""
        return json_digest(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """The configuration as one line of JSON, as `from_json` reads it."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> RunConfig:
        """Read what `to_json` wrote.

        Raises:
            ConfigError: unknown keys, wrong types, values out of range.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(explain(error)) from error

    def with_settings(self, settings: Sequence[str]) -> RunConfig:
        """A copy with `--set section.key=value` applied; values are JSON, or else plain text.

        Raises:
            ConfigError: a setting without `=`, an unknown key, a wrong type or value.
        """
        tree = self.model_dump(mode="json")
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise ConfigError(f"--set {setting}: expected section.key=value")
            self._place(tree, key.strip(), text.strip())
        return self.from_json(json.dumps(tree))

    @classmethod
    def _place(cls, tree: dict[str, Any], key: str, text: str) -> None:
        """Put `text` at the dotted `key`, or say what keys there are."""
        *sections, leaf = key.split(".")
        branch: dict[str, Any] = tree
        for depth, name in enumerate(sections):
            inner = branch.get(name)
            if name in branch and inner is None and name == "columns":
                branch[name] = inner = ColumnMapping().model_dump()
            if not isinstance(inner, dict):
                raise cls._unknown(key, ".".join(sections[:depth]), branch)
            branch = inner
        if leaf not in branch:
            raise cls._unknown(key, ".".join(sections), branch)
        branch[leaf] = _value(text)

    @staticmethod
    def _unknown(key: str, within: str, branch: Mapping[str, Any]) -> ConfigError:
        place = within or "the configuration"
        return ConfigError(f"--set {key}: no such key; {place} has {', '.join(sorted(branch))}")


def _value(text: str) -> Any:
    """A setting's value: JSON where it is JSON (numbers, booleans, lists), otherwise the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def explain(error: ValidationError) -> str:
    """A validation error as one line: each key, what was wrong with it, what was given."""
    parts = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "configuration"
        # What stands where a variable's name belongs may be the secret itself.
        shown = not isinstance(item["input"], dict) and not key.endswith("token_env")
        given = f" (given: {item['input']!r})" if shown else ""
        parts.append(f"{key}: {item['msg']}{given}")
    return "; ".join(parts)
