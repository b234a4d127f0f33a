"""Fixtures that several test folders share."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import pytest
import torch
from hypothesis import settings

from grocer.config.stages import PromptConfig
from grocer.events import VARIABLE
from grocer.model import device
from grocer.model.prompts.template import template
from grocer.model.tiny_llama import tiny_base
from tests.fixtures.object_store import object_store
from tests.fixtures.tiny_model import LABELS, NAMES, SHAPE

pytest_plugins = (
    "tests.fixtures.http_server",
    "tests.fixtures.kubernetes_api",
    "tests.fixtures.predictor_process",
)
SLOWEST = (
    "tests/test_end_to_end.py",
    "tests/serving/rollout/test_progressive.py",
    "tests/pipelines/local/",
    "tests/grocer/training/",
    "tests/pipelines/kubeflow/",
    "tests/grocer/evaluation/",
)


def pytest_configure() -> None:
    """Handle SIGINT, also in child processes: a shell's background job starts with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The duration of an example depends on the load of the machine.
    settings.register_profile("no_deadline", deadline=None)
    settings.load_profile("no_deadline")
    os.environ[VARIABLE] = os.devnull  # tests of events set a file
    os.environ.pop("KUBERNETES_SERVICE_HOST", None)  # as outside a pod


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the slowest files, so that no worker is left with one of them at the end."""

    def rank(item: pytest.Item) -> int:
        ranks = (i for i, path in enumerate(SLOWEST) if item.nodeid.startswith(path))
        return next(ranks, len(SLOWEST))

    items.sort(key=rank)


@pytest.fixture(scope="session", autouse=True)
def float32_on_cpus() -> Iterator[None]:
    """Compute in float32 on every CPU, so that exact comparisons hold on all of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "choose_cpu_dtype", lambda: (torch.float32, "float32: in tests"))
        yield


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny base model, built in a cache that only the tests use."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROCER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tiny_base(NAMES, template(PromptConfig()), LABELS, SHAPE)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Yield the address of an S3 server on loopback."""
    with object_store() as address:
        yield address


@pytest.fixture
def s3_environment(moto: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set the address, region and credentials of the S3 server; return the address."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return moto


@pytest.fixture
def s3(s3_environment: str) -> Any:
    """Return a client of the S3 server."""
    return boto3.client("s3", region_name="us-east-1")


@pytest.fixture
def bucket(s3: Any) -> str:
    """Create a bucket and return its name."""
    name = f"b-{uuid4().hex}"
    s3.create_bucket(Bucket=name)
    return name
