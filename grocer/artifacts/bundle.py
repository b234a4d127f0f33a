"""The address of a bundle."""

from __future__ import annotations

from grocer.artifacts.base import Digest, Record


class Bundle(Record):
    """The path or object-storage URI of a bundle, and its digest."""

    uri: str
    digest: Digest
