"""Fixtures of the predictor and its rollout."""

import pytest

from tests.fixtures.kubernetes_api import api, at_once, new_api  # noqa: F401
from tests.fixtures.predictor_process import (  # noqa: F401
    bundle_with_aisles,
    other_bundle,
    server,
    server_with_aisles,
    start_server,
    stub_bundle,
)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of asynchronous tests."""
    return "asyncio"
