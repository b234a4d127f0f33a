"""A process that has imported the training stack, from which training commands are forked."""

from collections.abc import Iterator

import pytest

from tests.fixtures.training_process import TrainingProcesses, training_processes


@pytest.fixture(scope="session")
def processes() -> Iterator[TrainingProcesses]:
    with training_processes() as started:
        yield started
