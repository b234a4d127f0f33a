"""Predictors as the tests of serving start them."""

from tests.serving.conftest import (  # noqa: F401
    levelled,
    levelled_bundle,
    server,
    start_any,
    stub_bundle,
)
