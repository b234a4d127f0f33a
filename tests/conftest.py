"""Fixtures that several test folders share."""

from __future__ import annotations

from pathlib import Path

import pytest

from grocer.config import PromptConfig
from grocer.prompts import template
from grocer.tiny import tiny_base
from tests.tinies import LABELS, NAMES, SHAPE


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base, in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GROCER_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tiny_base(NAMES, template(PromptConfig()), LABELS, SHAPE)
