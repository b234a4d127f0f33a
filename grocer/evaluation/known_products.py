"""Which products a run knew, as hashes: a bundle holds no product names."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from grocer.dataset.split import family
from grocer.release.manifest import KNOWN


def save(normalised_names: Iterable[str], directory: Path) -> None:
    """Write the sorted hashes of the families of a run's products, uint64 [n], to a directory."""
    np.save(directory / KNOWN, np.unique(_hashes(normalised_names)))


def are_new(normalised_names: Iterable[str], directory: Path) -> NDArray[np.bool_]:
    """Return for each name whether no name of its family is in the file in `directory`, as [n]."""
    known = np.load(directory / KNOWN, allow_pickle=False)
    return ~np.isin(_hashes(normalised_names), known)


def _hashes(normalised_names: Iterable[str]) -> NDArray[np.uint64]:
    digests = (sha256(family(name).encode()).digest() for name in normalised_names)
    return np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)
