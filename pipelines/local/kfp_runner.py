"""Compiles the pipeline and runs it on this machine, each step a process of its own.

`pipelines.run` starts this module as a child (`python -m pipelines.local`) and reads what it
prints; nothing here talks to a person.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path


def main(root: Path, arguments: Path) -> None:
    """Run the pipeline below `root`; `arguments` is a JSON file of its parameters."""
    _end_with_parent()
    from kfp import components, local

    from grocer.config.run import RunConfig
    from pipelines.kubeflow.training import package

    given = json.loads(arguments.read_text())
    pipeline = package(RunConfig.from_json(given["config"]), on_cluster=False).text
    _resolve_python_by_path()
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=str(root), enable_caching=False
    )
    components.load_component_from_text(pipeline)(**given)


def _end_with_parent() -> None:
    """End this process group when the parent is gone, however it went: our stdin closes then."""
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _resolve_python_by_path() -> None:
    """Keep kfp from rewriting paths and parameters that contain `python3`.

    Its runner puts `sys.executable` in place of every `python3` in a step's command line, the
    parameters' values included. The parent put our interpreter first on PATH, so the name alone
    does, and replacing it by itself changes nothing.
    """
    named = Path(sys.executable).with_name("python3")
    if named.exists() and named.samefile(sys.executable):
        sys.executable = "python3"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
