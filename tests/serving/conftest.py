"""Predictors around a stub scorer. Each is a process, forked from one that has imported KServe."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from grocer.config.recipes import tiny
from grocer.release.bundle import LoadedBundle
from serving.rollout import canary
from serving.rollout import deploy as deploying
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.kubernetes_api import OLD, Api

READY = "/v2/models/grocer/ready"


@dataclass
class Running:
    """A running predictor."""

    url: str
    process: BaseProcess
    log: Path

    @cached_property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, verify=False)

    def get(self, path: str, **options: object) -> httpx.Response:
        return self.client.get(path, **options)

    def post(self, path: str, **options: object) -> httpx.Response:
        return self.client.post(path, **options)

    def predict(self, *names: str, **parameters: object) -> httpx.Response:
        body = {"instances": names, **({"parameters": parameters} if parameters else {})}
        return self.post("/v1/models/grocer:predict", json=body)

    def exit_code(self, sig: int | None = None, seconds: float = 20) -> int | None:
        """Send a signal, if any, and wait for the process to exit."""
        if sig is not None:
            os.kill(self.process.pid, sig)
        self.process.join(seconds)
        return self.process.exitcode

    def wait_until_ready(self, seconds: float = 60) -> Running:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.is_alive(), self.log.read_text()
            try:
                if self.get(READY).status_code == 200:
                    return self
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready: {self.log.read_text()}")


def _serve(
    bundle: str,
    port: int,
    log: str,
    settings: Sequence[str],
    options: Sequence[str],
    hold: Path | None,
    environment: Mapping[str, str],
) -> None:
    """Run `python -m tests.fixtures.predictor` in a forked process."""
    from tests.fixtures import predictor

    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    sys.argv = ["predictor", "--bundle", bundle, "--port", str(port), *overrides, *options]
    sys.exit(predictor.main(hold))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def stub_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    return make_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="session")
def other_bundle(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """A bundle with another configuration, and therefore another digest."""
    config = tiny().with_settings(["serving.top_k=2"])
    return make_bundle(tmp_path_factory.mktemp("bundles"), config)


@pytest.fixture(scope="session")
def bundle_with_aisles(tmp_path_factory: pytest.TempPathFactory) -> LoadedBundle:
    """A bundle with two levels; bakery has no aisles."""
    config = tiny().with_settings(["catalogue.levels=2"])
    return make_bundle(tmp_path_factory.mktemp("bundles"), config)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Return a function that starts a predictor: `start_server(bundle, "key=value", …)`.

    Its keyword arguments: `options` of the command line, `hold`, a file that the model waits for,
    and additional variables of the `environment`.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["serving.predictor.lifecycle", "tests.fixtures.predictor"])
    started: list[BaseProcess] = []

    def start(
        bundle: LoadedBundle,
        *settings: str,
        options: Sequence[str] = (),
        hold: Path | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Running:
        port, log = free_port(), tmp_path_factory.mktemp("log") / "log"
        arguments = (
            str(bundle.path),
            port,
            str(log),
            ("drain_seconds=0", "queue_seconds=60", *settings),
            options,
            hold,
            dict(environment),
        )
        process = context.Process(target=_serve, args=arguments)
        process.start()
        started.append(process)
        return Running(f"http://127.0.0.1:{port}", process, log)

    yield start
    for process in started:
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()


@pytest.fixture(scope="session")
def server(start_server: Start, stub_bundle: LoadedBundle) -> Running:
    """A shared predictor; tests must not break or stop it."""
    return start_server(stub_bundle, "max_body_bytes=200000", "body_seconds=1").wait_until_ready()


@pytest.fixture(scope="session")
def server_with_aisles(start_server: Start, bundle_with_aisles: LoadedBundle) -> Running:
    """A shared predictor of departments and aisles."""
    return start_server(bundle_with_aisles, "ui=true").wait_until_ready()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip uploads and waits of a rollout."""
    monkeypatch.setattr(deploying, "publish", lambda bundle, store: f"{store}/{bundle.digest}")
    monkeypatch.setattr(deploying, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(canary, "SHIFT_SECONDS", 1.0)


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
