"""Fixtures of the predictor and its rollout."""

from collections.abc import Iterator

import pytest

from tests.fixtures.kubernetes_api import OLD, Api


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The event loop of asynchronous tests."""
    return "asyncio"


@pytest.fixture
def api(at_once: None) -> Iterator[Api]:
    """A cluster that serves another bundle."""
    with Api({}, first=OLD) as made:
        yield made


@pytest.fixture
def new_api(at_once: None) -> Iterator[Api]:
    """A cluster without a deployed bundle."""
    with Api({}) as made:
        yield made
