"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from grocer.recipes import RECIPES

if TYPE_CHECKING:
    from components.images import Images

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, as in gate.min_accuracy=0.9"
    ),
]
Recipe = Annotated[
    str, typer.Option("--recipe", metavar="NAME", help=f"What to begin from: {', '.join(RECIPES)}")
]
ImagesFile = Annotated[
    Path | None,
    typer.Option(
        "--images", metavar="FILE", help="Kustomization that names the images, as `make images` has"
    ),
]
KubernetesFormat = Annotated[
    bool, typer.Option("--kubernetes", help="As a Pipeline and a PipelineVersion, for GitOps")
]
KubeflowNamespace = Annotated[
    str, typer.Option("--namespace", metavar="NAME", help="Of those objects: Kubeflow's own")
]
Host = Annotated[
    str | None, typer.Option(metavar="URL", help="Kubeflow Pipelines; else KF_PIPELINES_ENDPOINT")
]
Namespace = Annotated[
    str | None, typer.Option(metavar="NAME", help="Yours, where Kubeflow is shared by several")
]
Token = Annotated[
    str, typer.Option(metavar="NAME", help="Environment variable of a bearer token, if needed")
]
Account = Annotated[
    str, typer.Option(metavar="NAME", help="Kubernetes service account of the steps")
]
Follow = Annotated[bool, typer.Option(help="Show its steps until it ends")]
Cron = Annotated[str, typer.Option(metavar="EXPRESSION", help="As in crontab: '0 3 * * 1'")]
Replace = Annotated[
    bool, typer.Option("--replace", help="Take the place of the schedule of that name")
]


def images_of(file: Path | None) -> Images:
    """The images that `file` names; without one, those that this checkout or release goes with."""
    from components.images import IMAGES, LOCK, Images

    if file is None and not LOCK.exists():
        return IMAGES
    return Images.read(file or LOCK)
