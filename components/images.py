"""The images that the components run on: three, from one lock."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from grocer import __version__
from grocer.errors import ConfigError

LOCK = Path(__file__).parents[1] / "manifests" / "components" / "images" / "kustomization.yaml"
"""What `make images` writes, in a checkout."""
_PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}|[^\s@]+:(?!latest$)[\w][\w.-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Images:
    """References of the images, each by tag or digest.

    Kubeflow's cache and a node's image store both go by the reference alone, so one that can
    change under its name (none, or `latest`) is refused.
    """

    data: str = f"grocer-data:{__version__}"
    """Data steps and the gate: no torch."""
    train: str = f"grocer-train:{__version__}"
    """Training and evaluation: CUDA."""
    serve: str = f"grocer-serve:{__version__}"
    """The predictor, and the step that deploys it."""

    def __post_init__(self) -> None:
        for field in fields(self):
            reference = getattr(self, field.name)
            if not _PINNED.fullmatch(reference):
                raise ConfigError(
                    f"image {field.name}: {reference!r} names no fixed image; "
                    "give a tag other than latest, or a digest"
                )

    @classmethod
    def read(cls, path: Path) -> "Images":
        """The images that a kustomization names, which manifests take from the same file.

        Raises:
            ConfigError: there is no such file, or it does not name all three.
        """
        try:
            entries = yaml.safe_load(path.read_text())["images"]
            named = {entry["name"]: _reference(entry) for entry in entries}
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--images {path}: not a kustomization with images ({error}); `make images` "
                "writes one"
            ) from error
        try:
            return cls(**{field.name: named[f"grocer-{field.name}"] for field in fields(cls)})
        except KeyError as error:
            raise ConfigError(f"--images {path}: it does not name {error}") from error


def _reference(entry: dict[str, Any]) -> str:
    """A kustomize image as one reference."""
    name = entry.get("newName", entry["name"])
    return f"{name}@{entry['digest']}" if "digest" in entry else f"{name}:{entry['newTag']}"


IMAGES = Images()
