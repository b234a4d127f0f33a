"""Fixtures of the predictor for the tests of docs/api.md."""

from tests.fixtures.predictor_process import (  # noqa: F401
    bundle_with_aisles,
    server,
    server_with_aisles,
    start_server,
    stub_bundle,
)
