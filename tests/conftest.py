"""Fixtures that several test folders share."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from grocer.config.stages import PromptConfig
from grocer.model.prompt_template import template
from grocer.model.tiny_llama import tiny_base
from tests.fixtures.object_store import object_store
from tests.fixtures.tiny_model import LABELS, NAMES, SHAPE


def pytest_configure() -> None:
    """Hear SIGINT, in the tests' children too: a shell's background job starts with it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long an example takes says how busy the machine is, not whether the code is right.
    settings.register_profile("unhurried", deadline=None)
    settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROCER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tiny_base(NAMES, template(PromptConfig()), LABELS, SHAPE)


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """A real S3 server on loopback."""
    with object_store() as address:
        yield address
