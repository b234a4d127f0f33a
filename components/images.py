"""References of the container images that the components run in."""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grocer import __version__
from grocer.errors import ConfigError

LOCK = Path(__file__).parents[1] / "manifests" / "components" / "images" / "kustomization.yaml"
"""Written by `make images`; exists in a checkout only."""
_PINNED = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}|[^\s@]+:(?!latest$)[\w][\w.-]{0,127}")


@dataclass(frozen=True, kw_only=True)
class Images:
    """References of the images, each with a tag or digest.

    Kubeflow's cache key and a node's image cache depend on the reference only, so a mutable
    reference (without a tag, or `latest`) is refused.
    """

    data: str = f"grocer-data:{__version__}"
    """All other steps: no torch."""
    train: str = f"grocer-train:{__version__}"
    """Training and evaluation: CUDA."""
    serve: str = f"grocer-serve:{__version__}"
    """The predictor, and the steps check_due, find_champion, deploy and classify_shard."""

    def __post_init__(self) -> None:
        for field in fields(self):
            reference = getattr(self, field.name)
            if not _PINNED.fullmatch(reference):
                raise ConfigError(
                    f"image {field.name}: {reference!r} is mutable; use a tag other "
                    "than latest, or a digest"
                )

    @classmethod
    def read(cls, path: Path) -> "Images":
        """Return the images in a kustomization, which the manifests use as well.

        Raises:
            ConfigError: the file is not a kustomization, or lacks an image.
        """
        import yaml  # not installed without the extra pipeline

        try:
            entries = yaml.safe_load(path.read_bytes())["images"]
            references = {entry["name"]: _reference(entry) for entry in entries}
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"--images {path}: not a kustomization with images ({error}); run `make images`"
            ) from error
        try:
            return cls(**{field.name: references[f"grocer-{field.name}"] for field in fields(cls)})
        except KeyError as error:
            raise ConfigError(f"--images {path}: image {error} missing") from error


def _reference(entry: dict[str, Any]) -> str:
    """Return the reference of a kustomize image."""
    name = entry.get("newName", entry["name"])
    return f"{name}@{entry['digest']}" if "digest" in entry else f"{name}:{entry['newTag']}"


IMAGES = Images()
