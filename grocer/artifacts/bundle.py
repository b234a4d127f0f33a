"""The address of a bundle."""

from __future__ import annotations

from grocer.artifacts.base import Digest, Record


class Bundle(Record):
    """A bundle at a path or an object-storage URI, under the digest of its content."""

    uri: str
    digest: Digest
