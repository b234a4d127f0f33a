"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from grocer.config.recipes import RECIPES, recipe

if TYPE_CHECKING:
    from components.images import Images


def complete_settings(incomplete: str) -> list[str]:
    """Return the configuration keys that start with `incomplete`, for shell completion."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict) and value and not prefix:
                yield from walk(value, f"{key}.")
            else:
                yield f"{prefix}{key}="

    keys = walk(recipe("tiny").model_dump(mode="json"), "")
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
        help=f"Configuration to start from: {' or '.join(RECIPES)}",
        autocompletion=lambda: list(RECIPES),
    ),
]
ImagesFile = Annotated[
    Path | None,
    Option(
        "--images",
        metavar="FILE",
        help="Kustomization with the image references, as written by make images; default: those "
        "of this checkout or release",
    ),
]
KubernetesFormat = Annotated[
    bool,
    Option(
        "--kubernetes", help="Write Pipeline and PipelineVersion objects, for kubectl or GitOps"
    ),
]
KubeflowNamespace = Annotated[
    str, Option("--namespace", metavar="NAME", help="Namespace of the --kubernetes objects")
]
Host = Annotated[
    str | None,
    Option(
        metavar="URL",
        help="Address of Kubeflow Pipelines; default: KF_PIPELINES_ENDPOINT, the pod's cluster, or "
        "the kubeconfig",
    ),
]
Namespace = Annotated[
    str | None, Option(metavar="NAME", help="User namespace, for a multi-user Kubeflow")
]
Token = Annotated[
    str, Option(metavar="NAME", help="Environment variable with the bearer token for Kubeflow")
]
Account = Annotated[str, Option(metavar="NAME", help="Kubernetes service account of the steps")]
MinProbability = Annotated[
    float,
    Option(metavar="P", min=0.0, max=1.0, help="Leave the department empty below this probability"),
]
Follow = Annotated[bool, Option(help="Wait for the run and show its steps, or only start it")]
Cron = Annotated[
    str,
    Option(
        metavar="EXPRESSION",
        help="Cron expression of five fields, or six with seconds first: '0 3 * * 1'",
    ),
]
Replace = Annotated[bool, Option("--replace", help="Overwrite a schedule with the same name")]


def images_of(file: Path | None) -> Images:
    """Return the images in `file`; by default, those of this checkout or release."""
    from components.images import IMAGES, LOCK, Images

    if file is None and not LOCK.exists():
        return IMAGES
    return Images.read(file or LOCK)
