"""Compiles the pipeline and runs it with `kfp.local`, each step as a process.

`pipelines.local.run` starts this module as a child process: its output is the run's log, and the
steps report through the event file.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path


def main(root: Path, arguments: Path) -> None:
    """Run the pipeline below `root`; `arguments` is a JSON file with the pipeline's parameters."""
    _exit_with_parent()
    from kfp import components, local

    from grocer.config.run import RunConfig
    from pipelines.kubeflow import retraining, training

    parameters = json.loads(arguments.read_text())
    package = retraining.package if "when" in parameters else training.package
    pipeline = package(RunConfig.from_json(parameters["config"]), on_cluster=False).text
    _resolve_python_by_path()
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=str(root), enable_caching=False
    )
    run = components.load_component_from_text(pipeline)
    try:
        run(**parameters)
    except RuntimeError as error:  # a step failed, and its output has the details
        sys.exit(str(error))


def _exit_with_parent() -> None:
    """Kill this process group when the parent exits for any reason, which closes our stdin."""
    lifeline = os.dup(0)
    with open(os.devnull) as null:
        os.dup2(null.fileno(), 0)

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _resolve_python_by_path() -> None:
    """Keep kfp from rewriting paths and parameters that contain `python3`.

    kfp replaces each `python3` in a step's command line, including parameter values, with
    `sys.executable`. The parent puts our interpreter first on PATH, so `python3` is already the
    right one, and replacing it with itself changes nothing.
    """
    python3 = Path(sys.executable).with_name("python3")
    if python3.exists() and python3.samefile(sys.executable):
        sys.executable = "python3"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
