"""The configuration of a run: one frozen, typed and validated `RunConfig`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import ValidationError, model_validator

from grocer.config import deployment, stages
from grocer.config.base import Section
from grocer.config.removed import REMOVED
from grocer.errors import ConfigError, redacted, validation_problems
from grocer.io.atomic import json_digest

_ERRORS_SHOWN = 3
_ADDRESSES = ("s3:", "gs:", "oci", "http")


class RunConfig(Section):
    """The whole configuration of a run."""

    recipe: str
    """Name of the recipe that the configuration is based on."""
    data: stages.DataConfig = stages.DataConfig()
    validation: stages.ValidationConfig = stages.ValidationConfig()
    catalogue: stages.CatalogueConfig = stages.CatalogueConfig()
    split: stages.SplitConfig = stages.SplitConfig()
    prompt: stages.PromptConfig = stages.PromptConfig()
    base: stages.BaseConfig = stages.BaseConfig()
    tiny: stages.TinyConfig = stages.TinyConfig()
    lora: stages.LoraSettings = stages.LoraSettings()
    train: stages.TrainConfig = stages.TrainConfig()
    evaluation: stages.EvaluationConfig = stages.EvaluationConfig()
    predictor: stages.PredictorConfig = stages.PredictorConfig()
    gate: stages.GatePolicy = stages.GatePolicy()
    serving: deployment.ServingConfig = deployment.ServingConfig()
    deploy: deployment.DeployConfig = deployment.DeployConfig()
    registry: deployment.RegistryConfig = deployment.RegistryConfig()
    cluster: deployment.ClusterConfig = deployment.ClusterConfig()

    @model_validator(mode="after")
    def _split_leaves_training_products(self) -> Self:
        if self.split.validation + self.split.test > 0.8:
            raise ValueError("split.validation + split.test leave less than 20 % for training")
        return self

    @model_validator(mode="after")
    def _strategy_predicts_aisles(self) -> Self:
        strategy = self.predictor.strategy
        if self.catalogue.levels == 2 and strategy in ("cascade", "linear"):
            raise ValueError(
                f"predictor.strategy={strategy} does not predict aisles (catalogue.levels=2); use "
                "adapter, ensemble or auto"
            )
        return self

    @model_validator(mode="after")
    def _addresses_have_no_credentials(self) -> Self:
        """A configuration is part of the bundle and of a pipeline, which others can read."""
        for section, settings in self.model_dump().items():
            for key, value in settings.items() if isinstance(settings, dict) else ():
                is_address = isinstance(value, str) and value.startswith(_ADDRESSES)
                if is_address and redacted(value) != value:
                    raise ValueError(
                        f"{section}.{key}: the address holds a user or a query; set the "
                        "credentials in the environment, or in a Secret of the cluster"
                    )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the whole configuration."""
        return json_digest(self.model_dump(mode="json"))

    def to_json(self) -> str:
        """Return the configuration as one line of JSON, readable by `from_json`."""
        return json.dumps(self.model_dump(mode="json"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Parse the output of `to_json`.

        Raises:
            ConfigError: unknown or removed keys, wrong types, values out of range.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ConfigError(_explain(error)) from error

    def with_settings(self, settings: Sequence[str]) -> Self:
        """Return a copy with `section.key=value` applied; values are JSON or plain text.

        Raises:
            ConfigError: a setting without `=`, an unknown or removed key, a wrong type or value.
        """
        tree = self.model_dump(mode="json")
        for setting in settings:
            key, equals, text = setting.partition("=")
            if not equals:
                raise ConfigError(f"--set {setting}: expected section.key=value")
            _assign(tree, key.strip(), text.strip())
        return self.from_json(json.dumps(tree))


def _assign(tree: dict[str, Any], key: str, text: str) -> None:
    """Set the dotted `key` in `tree`; raise a ConfigError that lists valid keys if unknown."""
    if key in REMOVED:
        raise ConfigError(f"--set {key}: removed; {REMOVED[key]}")
    *sections, leaf = key.split(".")
    branch = tree
    for depth, name in enumerate(sections):
        if name == "columns" and name in branch and branch[name] is None:
            branch[name] = stages.ColumnMapping().model_dump()
        if not isinstance(branch.get(name), dict):
            raise _unknown(key, ".".join(sections[:depth]), branch)
        branch = branch[name]
    if leaf not in branch:
        raise _unknown(key, ".".join(sections), branch)
    try:
        branch[leaf] = json.loads(text)
    except json.JSONDecodeError:
        branch[leaf] = text
    if sections[-1:] == ["columns"] and not isinstance(branch[leaf], str | None):
        branch[leaf] = text  # the column 2025


def _unknown(key: str, section: str, branch: Mapping[str, Any]) -> ConfigError:
    where = section or "the configuration"
    return ConfigError(f"--set {key}: no such key; {where} has {', '.join(sorted(branch))}")


def _explain(error: ValidationError) -> str:
    """Return a validation error as one line: the first few keys, each with problem and value."""
    parts = []
    for problem in validation_problems(error):
        key = problem.partition(":")[0]
        if "match pattern" in problem:
            section, _, leaf = key.partition(".")
            owner: Any = RunConfig.model_fields[section].annotation
            problem += f". {str(owner.model_fields[leaf].description).partition(' null:')[0]}"
        if "valid array" in problem:
            problem += '; a list is written as JSON, for example ["one", "two"]'
        parts.append(f"{key}: removed; {REMOVED[key]}" if key in REMOVED else problem)
    more = len(parts) - _ERRORS_SHOWN
    return "; ".join([*parts[:_ERRORS_SHOWN], *([f"and {more} more"] if more > 0 else [])])
