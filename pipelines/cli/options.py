"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grocer.config.recipes import RECIPES, recipe

if TYPE_CHECKING:
    from components.images import Images


def settings_like(begun: str) -> list[str]:
    """The keys that `--set` takes, for the shell to complete what was begun."""

    def below(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            if isinstance(value, dict) and value and not prefix:
                yield from below(value, f"{key}.")
            else:
                yield f"{prefix}{key}="

    keys = below(recipe("tiny").model_dump(mode="json"), "")
    return [key for key in keys if key.startswith(begun)]


def limits_like(begun: str) -> list[str]:
    """The keys of serving, which `grocer serve --set` takes by themselves."""
    return [key.removeprefix("serving.") for key in settings_like(f"serving.{begun}")]


Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, as in gate.min_accuracy=0.9; may be given again",
        autocompletion=settings_like,
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        "--recipe",
        metavar="NAME",
        help=f"Configuration to begin from: {' or '.join(RECIPES)}",
        autocompletion=lambda: list(RECIPES),
    ),
]
ImagesFile = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FILE",
        help="Kustomization that names the images, as make images writes it; else those that this "
        "checkout or release goes with",
    ),
]
KubernetesFormat = Annotated[
    bool,
    typer.Option(
        "--kubernetes", help="Write a Pipeline and a PipelineVersion for kubectl, as for GitOps"
    ),
]
KubeflowNamespace = Annotated[
    str,
    typer.Option(
        "--namespace", metavar="NAME", help="Namespace of these two objects: Kubeflow's own"
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Address of Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT, the pod's own cluster or "
        "the kubeconfig's",
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Your namespace, where several share Kubeflow"),
]
Token = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Environment variable that holds Kubeflow's bearer token, where it wants one",
    ),
]
Account = Annotated[
    str,
    typer.Option(metavar="NAME", help="Kubernetes service account that the steps run as"),
]
MinProbability = Annotated[
    float,
    typer.Option(
        metavar="P",
        min=0.0,
        max=1.0,
        help="Leave the department of rows below this probability empty",
    ),
]
Follow = Annotated[bool, typer.Option(help="Show the run's steps until it ends, or only start it")]
Cron = Annotated[
    str,
    typer.Option(
        metavar="EXPRESSION",
        help="Five fields as in crontab, or six with seconds first: '0 3 * * 1'",
    ),
]
Replace = Annotated[
    bool, typer.Option("--replace", help="Take the place of a schedule of that name")
]


def images_of(file: Path | None) -> Images:
    """The images that `file` names; without one, those that this checkout or release goes with."""
    from components.images import IMAGES, LOCK, Images

    if file is None and not LOCK.exists():
        return IMAGES
    return Images.read(file or LOCK)
