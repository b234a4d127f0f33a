"""Fixtures of the tests of manifests."""

from tests.fixtures.kubernetes_api import without_waits  # noqa: F401
