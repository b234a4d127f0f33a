"""Fixtures that several test folders share."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.prompts import template
from grocer.settings import PromptConfig
from grocer.tiny import tiny_base
from tests.tinies import LABELS, NAMES, SHAPE


def pytest_configure() -> None:
    """Hear SIGINT, in the tests' children too: a shell's background job starts with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROCER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tiny_base(NAMES, template(PromptConfig()), LABELS, SHAPE)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """A real S3 server in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)
