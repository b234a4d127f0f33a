"""Fixtures for the tests of steps."""

from tests.fixtures.kubernetes_api import api  # noqa: F401
