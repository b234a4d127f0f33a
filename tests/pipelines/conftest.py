"""Fixtures: the real command and pipeline over a toy domain (see toy/sitecustomize.py)."""

import contextlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.main import execute

TOY = Path(__file__).parent / "toy"
ROOT = Path(__file__).parents[2]


class Toy:
    """Runs `grocer run` in its own folder; `behaviour` tells a step how to fail."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.out = folder / "out"
        self.data.mkdir(parents=True)

    def start(self, *options: str, **behaviour: str) -> subprocess.Popen[str]:
        (self.data / "behaviour.json").write_text(json.dumps(behaviour))
        command = [sys.executable, "-m", "pipelines.cli.main", "run"]
        return subprocess.Popen(
            [*command, "--data", "data", "--out", "out", *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": f"{TOY}{os.pathsep}{ROOT}", "TOY": str(self.folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *options: str, **behaviour: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*options, **behaviour)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def processes(self) -> list[str]:
        """Return the command lines of all processes that descend from a run."""
        variable = f"TOY={self.folder}".encode()
        commands = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if variable in (process / "environ").read_bytes().split(b"\0"):
                    commands.append((process / "cmdline").read_text())
        return commands

    def outputs(self) -> set[str]:
        """Return the names in the folder, without the source data."""
        return set(os.listdir(self.folder)) - {"data"}


@pytest.fixture(autouse=True)
def shallow_stack(monkeypatch):
    """Compile pipelines in a fraction of the time.

    kfp calls `inspect.stack` for each setting of a task, to name the setting in an error message.
    `inspect` searches all loaded modules for the source of each frame, and pytest has many frames.
    """

    def stack(context=1):
        frames = (sys._getframe(1), sys._getframe(2))
        return [inspect.FrameInfo(each, *inspect.getframeinfo(each, 0)) for each in frames]

    monkeypatch.setattr(inspect, "stack", stack)


@pytest.fixture
def user_error(capsys):
    """Return a function that runs a command and returns its user error, which is one line."""

    def run(*arguments):
        capsys.readouterr()
        assert execute(arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("grocer: ")
        return line.removeprefix("grocer: ")

    return run


@pytest.fixture
def toy(tmp_path):
    # kfp replaces each "python3" in a command, and a shell splits it at spaces.
    return Toy(tmp_path / "a python3 'folder'")
