"""An encoder of the tiny base, and a process from which training commands are forked."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from grocer.model.base import load_tokenizer
from grocer.model.prompts.tokenization import Encoder
from tests.fixtures.tiny_model import encoder
from tests.fixtures.training_process import TrainingProcesses, training_processes


@pytest.fixture(scope="module")
def coder(base: Path) -> Encoder:
    return encoder(load_tokenizer(base))


@pytest.fixture(scope="session")
def processes() -> Iterator[TrainingProcesses]:
    with training_processes() as started:
        yield started
