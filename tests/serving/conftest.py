"""Fixtures of the predictor and its rollout."""

from collections.abc import Iterator

import pytest

from serving.rollout import deploy as deploying
from serving.rollout import kubernetes, progressive, traffic
from tests.fixtures.kubernetes_api import OLD, Api
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


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip uploads and waits of a rollout."""
    monkeypatch.setattr(deploying, "publish", lambda bundle, store: f"{store}/{bundle.digest}")
    monkeypatch.setattr(deploying, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(traffic, "SHIFT_SECONDS", 1.0)
    monkeypatch.setattr(traffic, "PROXY_SECONDS", 0.0)
    for module, name in ((progressive, "POLL_SECONDS"), (kubernetes, "RETRY_SECONDS")):
        monkeypatch.setattr(module, name, 0.01)


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
