"""The images that the components run on: three, from one lock."""

import re
from dataclasses import dataclass, fields

from grocer import __version__
from grocer.errors import ConfigError

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


IMAGES = Images()
