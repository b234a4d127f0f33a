"""Fixtures of the tests of manifests."""

from tests.fixtures.kubernetes_api import at_once  # noqa: F401
