"""`grocer run`: the compiled pipeline on this machine, its output whole or absent."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

from grocer.config.run import RunConfig
from grocer.errors import ConfigError, GrocerError, SourceError, StepError
from grocer.io.atomic import output_errors, output_file
from pipelines.local import log_events as events
from pipelines.local.output_dir import rejection, swap_in, workplace
from pipelines.local.outputs import Finished, collect, rejected
from pipelines.local.processes import interruptible, supervised, undisturbed
from pipelines.local.progress import Progress

# Older ones take a condition's branch wrongly: they deploy what the gate refused.
OLDEST_KFP = (2, 17)


class RunError(Exception):
    """A step broke, by a bug of ours or because it was killed; `str(error)` says where to look."""


def run(
    data: str,
    out: Path,
    config: RunConfig,
    *,
    replace: bool = False,
    champion: Path | None = None,
) -> Finished:
    """Run the pipeline on `data` and leave everything in the directory `out`.

    `champion` is the bundle now served: the new adapter must beat it on the same products.

    Raises:
        GrocerError: a mistake of the user's, here or in a step; `out` is as it was. When
            expectations fail, `out` with `.rejected` behind its name holds what they found.
        RunError: a step broke; `out` is as it was, and the log lies beside it.
        KeyboardInterrupt: interrupted; no process and no file is left.
    """
    check_kfp()
    source, out = _existing(data), out.expanduser().resolve()
    rejection(out)
    if champion is not None:
        from grocer.release.bundle import load_bundle

        champion = load_bundle(champion).path.resolve()
    with interruptible(), workplace(out, replace=replace, keep=Path(source)) as work:
        root, log = work / "pipeline", work / "run.log"
        arguments = {
            "data": source,
            "config": config.to_json(),
            "champion": str(champion or ""),
        }
        code, outcome = _execute(root, arguments, log, _environment(config))
        if code:
            raise _failure(outcome, root, log, out, work)
        finished = collect(root, log, config, work / "made", out)
        with undisturbed():
            swap_in(work / "made", out, work)
        return finished


def check_kfp() -> None:
    """Refuse a kfp whose local runner is known to take the gate's branch wrongly.

    Raises:
        ConfigError: kfp is older than `OLDEST_KFP`.
    """
    installed = version("kfp")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST_KFP:
        raise ConfigError(
            f"kfp {installed} is installed, and it can deploy what the gate refused; "
            f"grocer needs kfp {'.'.join(map(str, OLDEST_KFP))} or later: run `make setup`"
        )


def _existing(data: str) -> str:
    """The source as steps will read it: a URI as it is, a path made absolute."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", data):
        return data
    path = Path(data).expanduser().absolute()
    if not path.exists():
        raise SourceError(f"--data {data}: there is no such file or directory")
    return str(path)


def _environment(config: RunConfig) -> dict[str, str]:
    """What the steps find in their environment, beside what is there already."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    given = {
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # a random.py in the working directory is not Python's own
        "TOKENIZERS_PARALLELISM": "false",
    }
    threads = {"OMP_NUM_THREADS": "1"} if config.base.source == "tiny" else {}
    if config.base.source == "tiny" or Path(config.base.source).exists():
        given["HF_HUB_OFFLINE"] = "1"
    return {**threads, **os.environ, **given}


def _execute(
    root: Path, arguments: Mapping[str, str], log: Path, environment: Mapping[str, str]
) -> tuple[int, events.Outcome]:
    """Run the pipeline below `root`, all that it prints going to `log`.

    Returns:
        Its exit status, and what its lines told.
    """
    outcome = events.Outcome()
    with ExitStack() as stack:
        # kfp leaves each step's program in the temporary directory: give it one that goes away.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="grocer-"))
        given = Path(temporary, "arguments.json")
        given.write_text(json.dumps(arguments))
        lines = stack.enter_context(log.open("w"))
        progress = stack.enter_context(Progress())
        process = stack.enter_context(
            supervised(
                [sys.executable, "-m", "pipelines.local.kfp_runner", str(root), str(given)],
                {**environment, "TMPDIR": temporary},
            )
        )
        assert process.stdout is not None
        for raw in process.stdout:
            line = events.plain(raw)
            lines.write(f"{line}\n")
            if event := outcome.take(line):
                progress.follow(event)
        code = process.wait()
        if not code and "deploy" not in outcome.done:
            progress.skip("deploy", "skipped: the gate said no")
    return code, outcome


def _failure(
    outcome: events.Outcome, root: Path, log: Path, out: Path, work: Path
) -> GrocerError | RunError:
    """What a run that did not end well is to raise; what helps to mend it is put beside `out`."""
    if outcome.mistake:
        text = outcome.mistake.replace(str(work), str(out))
        if found := rejected(root):
            beside = rejection(out)
            with undisturbed():
                swap_in(found, beside, work)
            text = f"{text} (see {beside / 'validation.html'})"
        return StepError(text)
    if shutil.disk_usage(work).free < 2**20:
        return StepError(f"{outcome.step}: no space is left on the device of {out}")
    kept = out.with_name(f"{out.name}.failed.log")
    with output_errors(kept), output_file(kept) as part:
        shutil.copyfile(log, part)
    last = textwrap.dedent("\n".join(outcome.last))
    return RunError(f"{last}\ngrocer: {outcome.step or 'the run'} broke; its log: {kept}")
