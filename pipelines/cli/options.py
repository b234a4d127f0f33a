"""Options that several commands share, some of them in groups."""

from __future__ import annotations

import json
import logging
import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from typer import BadParameter, Option

from components.images import IMAGES, LOCK, Images
from grocer.config.deployment import NAME
from grocer.config.recipes import RECIPES, recipe
from grocer.config.run import RunConfig
from grocer.errors import ConfigError
from grocer.release.trust import DIRECTORY, VARIABLE
from grocer.retraining.conditions import Trigger
from pipelines.kubeflow.client import Server


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter whose type is a dataclass with the dataclass's fields, as options."""
    groups, options = {}, []
    for parameter in signature(command, eval_str=True).parameters.values():
        group = parameter.annotation
        if not is_dataclass(group):
            options.append(parameter)
            continue
        groups[parameter.name] = group
        types = get_type_hints(group, include_extras=True)
        options += [
            parameter.replace(name=each.name, default=each.default, annotation=types[each.name])
            for each in fields(group)
        ]

    @wraps(command)
    def expanded(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        command(**values)

    expanded.__signature__ = Signature(options)
    return expanded


def namespace_name(value: str | None) -> str | None:
    """Return the name of a namespace unchanged.

    Raises:
        BadParameter: Kubernetes does not accept it.
    """
    if value is None or re.fullmatch(NAME, value):
        return value
    raise BadParameter(f"{value!r}: use at most 63 lower-case letters, digits and hyphens")


def require_key(key: Path | None) -> None:
    """Require a signature by `key`, if it is given, in this process and those that it starts."""
    if key is not None:
        os.environ[VARIABLE] = str(key.expanduser().absolute())


def corrected_settings(settings: list[str] | None, corrections: str | None) -> list[str]:
    """Return the settings with that of `--corrections`, if it is given."""
    added = [] if corrections is None else [f"data.corrections={json.dumps(corrections)}"]
    return [*(settings or []), *added]


def silence_frameworks() -> None:
    """Turn off the frameworks' progress bars and warnings; to be called before their import."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def complete_settings(incomplete: str) -> list[str]:
    """Return the configuration keys that start with `incomplete`, for shell completion."""
    sections = recipe("tiny").model_dump(exclude={"recipe"})
    keys = ["recipe=", *(f"{name}.{key}=" for name, keys in sections.items() for key in keys)]
    return [key for key in keys if key.startswith(incomplete)]


def complete_serving(incomplete: str) -> list[str]:
    """Return the keys of `serving` without the prefix, as `grocer serve --set` takes them."""
    return [key.removeprefix("serving.") for key in complete_settings(f"serving.{incomplete}")]


Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a configuration key, for example gate.min_accuracy=0.9; repeatable",
        autocompletion=complete_settings,
    ),
]
Recipe = Annotated[
    str,
    Option(
        "--recipe",
        metavar="NAME",
        help=f"Configuration to start from: {', '.join(RECIPES)}",
        autocompletion=lambda: list(RECIPES),
    ),
]
Column = Annotated[str, Option(metavar="NAME", help="Column with the product names")]
MinProbability = Annotated[
    float,
    Option(metavar="P", min=0.0, max=1.0, help="Leave the department empty below this probability"),
]
Corrections = Annotated[
    str | None,
    Option(
        metavar="URI",
        help="Table of reviewed labels, as written by grocer review import: a directory, or an "
        "s3:// or gs:// URI; sets data.corrections",
    ),
]
Key = Annotated[
    Path | None,
    Option(
        metavar="PATH",
        help="Require a signature by this public key or CA (PEM), or by one of those in a "
        f"directory, which may also have a gate policy; default: ${VARIABLE}, or {DIRECTORY} if it "
        "exists",
    ),
]
Account = Annotated[str, Option(metavar="NAME", help="Kubernetes service account of the steps")]
Follow = Annotated[bool, Option(help="Wait for the run and show its steps, or only start it")]
Cron = Annotated[
    str,
    Option(
        metavar="EXPRESSION",
        help="Cron expression of five fields, or six with seconds first: '0 3 * * 1'",
    ),
]
ScheduleName = Annotated[str, Option(metavar="NAME", help="Name of the schedule")]
Replace = Annotated[bool, Option("--replace", help="Overwrite a schedule with the same name")]


@dataclass(frozen=True)
class PipelineOptions:
    """Configuration and images of a pipeline."""

    from_recipe: Recipe = "llama2-7b-t4"
    settings: Settings = None
    images_file: Annotated[
        Path | None,
        Option(
            "--images",
            metavar="FILE",
            help="Kustomization with the image references, as written by make images; default: "
            "those of this checkout or release",
        ),
    ] = None

    @property
    def config(self) -> RunConfig:
        return recipe(self.from_recipe).with_settings(self.settings or [])

    @property
    def images(self) -> Images:
        if self.images_file is None and not LOCK.exists():
            return IMAGES
        return Images.read(self.images_file or LOCK)


@dataclass(frozen=True)
class TriggerOptions:
    """When to train."""

    when: Annotated[
        str | None,
        Option(
            metavar="CONDITIONS",
            help="Train only if these are met: drift, N corrections, Nd (age of the champion in "
            "days), joined by or / and; for example 'drift or 500 corrections or 30d'",
        ),
    ] = None
    metrics: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Source of the condition drift: Prometheus, or the predictor's /metrics",
        ),
    ] = None
    cool_down: Annotated[
        float,
        Option(
            metavar="DAYS",
            min=0.0,
            help="With --when, minimum number of days since the gate last judged a model",
        ),
    ] = Trigger.cool_down_days

    def trigger(self, config: RunConfig) -> Trigger | None:
        if self.when is None:
            if self.metrics is not None or self.cool_down != Trigger.cool_down_days:
                raise ConfigError("--metrics and --cool-down require --when")
            return None
        return Trigger.of(
            self.when,
            metrics=self.metrics,
            corrections=config.data.corrections,
            cool_down_days=self.cool_down,
        )


@dataclass(frozen=True, kw_only=True)
class ServerOptions(Server):
    """Address and credentials of Kubeflow Pipelines."""

    host: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="Address of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT, the pod's "
            "cluster, or the kubeconfig",
        ),
    ] = None
    namespace: Annotated[
        str | None,
        Option(
            metavar="NAME",
            help="User namespace, for a multi-user Kubeflow",
            callback=namespace_name,
        ),
    ] = None
    token_env: Annotated[
        str, Option(metavar="NAME", help="Environment variable with the bearer token for Kubeflow")
    ] = Server.token_env
