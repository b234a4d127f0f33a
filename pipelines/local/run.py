"""`grocer run`: runs the compiled pipeline on this machine and writes its output atomically."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from rich.text import Text

from grocer import events
from grocer.artifacts.step import RUN_VARIABLE
from grocer.config.run import RunConfig
from grocer.errors import ConfigError, GrocerError, SourceError, StepError, redacted
from grocer.io.atomic import output_errors, output_file
from grocer.retraining.conditions import Trigger
from pipelines.local.outcome import Outcome
from pipelines.local.output_dir import rejected_dir, swap_in, working_dir
from pipelines.local.outputs import Finished, collect, failed_validation
from pipelines.local.processes import interruptible, supervised, undisturbed
from pipelines.local.progress import Progress

# Older versions evaluate conditions wrongly: they deploy although the gate failed.
OLDEST_KFP = (2, 17)
_POLL_SECONDS = 0.2


class RunError(Exception):
    """A step failed with an internal error or was killed; `str(error)` names its log."""


def run(
    data: str,
    out: Path,
    config: RunConfig,
    *,
    replace: bool = False,
    champion: Path | None = None,
    trigger: Trigger | None = None,
) -> Finished | None:
    """Run the pipeline on `data` and write everything to the directory `out`.

    Args:
        champion: the deployed bundle, which the new adapter is compared with.
        trigger: when to run; the cool-down starts with the run that is in `out`.

    Returns:
        None if the trigger's conditions are not met; `out` is unchanged.

    Raises:
        GrocerError: a user error, found here or by a step; `out` is unchanged. If validation
            failed, the directory `out`.rejected has its report.
        RunError: a step failed with an internal error; `out` is unchanged, and its log is next to
            it.
        KeyboardInterrupt: interrupted; no process and no file is left behind.
    """
    check_kfp()
    if config.train.nodes > 1:
        raise ConfigError(
            f"train.nodes={config.train.nodes}: this is one machine; set train.nodes=1 (and "
            "train.processes_per_node to its GPUs), or use grocer submit"
        )
    source, out = _absolute(data, "--data"), out.expanduser().resolve()
    config = _with_absolute_addresses(config)
    rejected_dir(out)
    if champion is not None:
        from grocer.release.bundle import load_bundle

        champion = load_bundle(champion).path.resolve()
    if config.deploy.signing_key is not None:
        from grocer.release.signature import check_key

        check_key(config.deploy.signing_key)
    arguments = {"data": source, "config": config.to_json(), "champion": str(champion or "")}
    keep = {
        "--data": source,
        "--champion": arguments["champion"],
        "--corrections": config.data.corrections or "",
        "data.partitions": config.data.partitions or "",
    }
    for option, path in {**keep, "--out": str(out)}.items():
        if path.encode(errors="ignore").decode() != path:
            raise ConfigError(f"{option} {path}: the path is not UTF-8; rename it")
    arguments |= asdict(trigger) | {"state": str(out)} if trigger else {}
    with interruptible(), working_dir(out, replace=replace, keep=keep) as work:
        code, outcome = _execute(work, arguments, _environment(config))
        if code:
            raise _failure(outcome, out, work)
        if outcome.succeeded == ["check_due"]:
            return None
        finished = collect(work / "pipeline", work / "run.log", config, work / "staging", out)
        with undisturbed():
            swap_in(work / "staging", out)
        return finished


def check_kfp() -> None:
    """Require a kfp whose local runner evaluates the gate's condition correctly.

    Raises:
        ConfigError: kfp is older than `OLDEST_KFP`.
    """
    installed = version("kfp")
    if tuple(int(part) for part in re.findall(r"\d+", installed)[:2]) < OLDEST_KFP:
        raise ConfigError(
            f"kfp {installed} can deploy a model that failed the gate; grocer needs kfp "
            f"{'.'.join(map(str, OLDEST_KFP))} or later: run `make setup`"
        )


def _with_absolute_addresses(config: RunConfig) -> RunConfig:
    """Return the configuration for steps, which have another working directory."""
    data, absolute = config.data, {}
    if data.corrections is not None:
        absolute["corrections"] = _absolute(data.corrections, "--corrections")
    if data.partitions is not None:
        absolute["partitions"] = _absolute(data.partitions)
    return config.with_settings(
        [f"data.{key}={json.dumps(value)}" for key, value in absolute.items()]
    )


def _absolute(address: str, option: str | None = None) -> str:
    """Return a URI unchanged and a path as an absolute path, which must exist if from `option`."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address):
        return address
    path = Path(address).expanduser().absolute()
    if option and not path.exists():
        raise SourceError(f"{option} {address}: no such file or directory")
    return str(path)


def _environment(config: RunConfig) -> dict[str, str]:
    """Return the environment variables of the steps."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    variables = {
        "PATH": path,
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",  # in any locale
        RUN_VARIABLE: str(uuid.uuid4()),
        "PYTHONSAFEPATH": "1",  # a random.py in the working directory must not shadow a module
        "TOKENIZERS_PARALLELISM": "false",
    }
    # A tiny model is faster on one thread; a value set by the user takes precedence.
    threads = {"OMP_NUM_THREADS": "1"} if config.base.source == "tiny" else {}
    source = config.base.source
    if source == "tiny" or "://" in source or Path(source).exists():
        variables["HF_HUB_OFFLINE"] = "1"
    return {**threads, **os.environ, **variables}


def _execute(
    work: Path, arguments: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[int, Outcome]:
    """Run the pipeline below `work`/pipeline and write its output to `work`/run.log.

    Returns:
        Its exit status and the outcome of its steps.
    """
    outcome, reported = Outcome(), events.EventFile(work / "events.jsonl")
    with ExitStack() as stack:
        # kfp leaves each step's program in the temporary directory.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="grocer-"))
        parameters = Path(temporary, "arguments.json")
        parameters.write_text(json.dumps(arguments))
        log = stack.enter_context((work / "run.log").open("w", encoding="utf-8"))
        progress = stack.enter_context(Progress())
        process = stack.enter_context(
            supervised(
                [
                    *(sys.executable, "-m", "pipelines.local.kfp_runner"),
                    *(str(work / "pipeline"), str(parameters)),
                ],
                {**environment, "TMPDIR": temporary, events.VARIABLE: str(reported.path)},
            )
        )
        copy = threading.Thread(target=_copy_output, args=(process.stdout, log, outcome.tail))
        copy.start()
        ended = False
        while not ended:
            copy.join(_POLL_SECONDS)
            ended = not copy.is_alive()  # before the last events are read
            for event in reported.read():
                outcome.add(event)
                progress.follow(event)
        code = process.wait()
        if code and outcome.running:
            progress.follow(events.Event(event="failed", step=outcome.running))
        elif not code and "gate" in outcome.succeeded and "deploy" not in outcome.succeeded:
            progress.skip("deploy", "skipped: gate failed")
    return code, outcome


def _copy_output(output: IO[str], log: IO[str], tail: deque[str]) -> None:
    """Copy the output of the steps without colours to `log`, and lines with text to `tail`."""
    with suppress(ValueError):  # closed by an interrupt
        for raw in output:
            line = redacted(Text.from_ansi(raw.rstrip()).plain)
            with suppress(OSError):  # the disk is full: without a reader, the steps would hang
                log.write(f"{line}\n")
            if line.strip():
                tail.append(line.removeprefix("    "))  # kfp's indentation


def _failure(outcome: Outcome, out: Path, work: Path) -> GrocerError | RunError:
    """Return the error of a failed run, and keep its log or validation report next to `out`."""
    if text := outcome.user_error:
        text = text.replace(str(work), str(out))
        if report := failed_validation(work / "pipeline"):
            rejected = rejected_dir(out)
            with undisturbed():
                swap_in(report, rejected)
            text = f"{text} (see {rejected / 'validation.html'})"
        return StepError(text)
    if shutil.disk_usage(work).free < 2**20:
        return StepError(f"{outcome.failed_step}: no space left on the device of {out}")
    kept = out.with_name(f"{out.name}.failed.log")
    with output_errors(kept), output_file(kept) as part:
        shutil.copyfile(work / "run.log", part)
    tail = "".join(f"{line}\n" for line in outcome.tail)
    return RunError(f"{tail}grocer: {outcome.failed_step}; log: {kept}")
