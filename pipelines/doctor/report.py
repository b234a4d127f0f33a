"""Findings of `grocer doctor`, and probes that neither hang nor end with a traceback."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Literal

State = Literal["ok", "failed", "optional"]
TIMEOUT = 10.0
"""Seconds for a probe that uses the network."""
_MAX_CHARACTERS = 300


@dataclass(frozen=True)
class Finding:
    """The result of one check, and the next step if it failed."""

    what: str
    found: str
    state: State
    next: str = ""
    needed: bool = False
    """Whether `grocer run --recipe smollm2`, or what an option or a variable names, needs it."""


def ok(what: str, found: str) -> Finding:
    """Return a passed check."""
    return Finding(what, _one_line(found), "ok")


def failed(what: str, found: str, next_step: str, needed: bool = False) -> Finding:
    """Return a failed check."""
    return Finding(what, _one_line(found), "failed", next_step, needed)


def optional(what: str, found: str, next_step: str = "") -> Finding:
    """Return the absence of something that is not required."""
    return Finding(what, _one_line(found), "optional", next_step)


def blocking(findings: Sequence[Finding]) -> list[Finding]:
    """Return the failed checks of what is needed."""
    return [finding for finding in findings if finding.needed and finding.state == "failed"]


def probe(
    what: str,
    package: str,
    extra: str,
    action: Callable[[], list[Finding]],
    next_step: str,
    *,
    needed: bool = False,
) -> list[Finding]:
    """Return the findings of `action`, or why it failed: no package, a timeout or an error.

    Args:
        package: what `action` imports; part of Grocer's `extra`.
        next_step: what to do after a timeout or an error.
    """
    try:
        importlib.import_module(package)  # not part of the timeout
    except ImportError as error:
        return [
            failed(what, f"{package} is not installed: {error}", install_command(extra), needed)
        ]
    future: Future[list[Finding]] = Future()

    def run() -> None:
        try:
            future.set_result(action())
        except BaseException as error:
            future.set_exception(error)

    # A daemon thread, as the interpreter does not wait for it after a timeout.
    Thread(target=run, daemon=True).start()
    try:
        return future.result(TIMEOUT)
    except TimeoutError:
        return [failed(what, f"no response within {TIMEOUT:g} s", next_step, needed)]
    except Exception as error:  # one broken probe must not stop the others
        return [failed(what, f"{type(error).__name__}: {error}", next_step, needed)]


def install_command(*extras: str) -> str:
    """Return the command that installs the packages of extras ("" is none)."""
    names = ",".join(extra for extra in extras if extra)
    project = f"'.[{names}]'" if names else "."
    return f"make setup, or: pip install -e {project}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_MAX_CHARACTERS]
