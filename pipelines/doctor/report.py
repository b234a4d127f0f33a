"""What `grocer doctor` finds of a part, and how it asks: not for long, and without tracebacks."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Literal, TypeVar

State = Literal["ok", "lacking", "not needed here"]
PATIENCE = 10.0  # seconds for whatever is asked over a network

T = TypeVar("T")


@dataclass(frozen=True)
class Finding:
    """One part: what it is, what was found of it, and what to do about a lack."""

    what: str
    found: str
    state: State
    next: str = ""
    needed: bool = False
    """Whether `grocer run --recipe tiny` here, or what was asked for by name, stops without it."""


def ok(what: str, found: str) -> Finding:
    """A part that is as it must be."""
    return Finding(what, _line(found), "ok")


def lacking(what: str, found: str, then: str, needed: bool = False) -> Finding:
    """A part that is not, with the next step."""
    return Finding(what, _line(found), "lacking", then, needed)


def unneeded(what: str, found: str, then: str = "") -> Finding:
    """A part that is not there, and that nothing here asks for."""
    return Finding(what, _line(found), "not needed here", then)


def stops(findings: Sequence[Finding]) -> list[Finding]:
    """The lacks that something needed stops at."""
    return [each for each in findings if each.needed and each.state == "lacking"]


def asked(
    what: str,
    package: str,
    extra: str,
    action: Callable[[], list[Finding]],
    then: str,
    *,
    needed: bool = False,
) -> list[Finding]:
    """What `action` finds, or why it could not look: no package, no answer in time, a fault.

    Args:
        package: what `action` imports, of Grocer's `extra`.
        then: the next step where it does not answer.
    """
    try:
        importlib.import_module(package)  # here, as an import is no wait for a server
    except ImportError as error:
        return [lacking(what, f"{package} is not installed: {error}", install(extra), needed)]
    try:
        return within(PATIENCE, action)
    except TimeoutError:
        return [lacking(what, f"no answer within {PATIENCE:g} s", then, needed)]
    except Exception as error:  # whatever breaks one probe is its finding; the others still look
        return [lacking(what, f"{type(error).__name__}: {error}", then, needed)]


def within(seconds: float, action: Callable[[], T]) -> T:
    """What `action` returns or raises; past `seconds` it is left behind, in a thread of its own.

    Raises:
        TimeoutError: it takes longer.
    """
    found: Future[T] = Future()

    def act() -> None:
        try:
            found.set_result(action())
        except BaseException as error:
            found.set_exception(error)

    Thread(target=act, daemon=True).start()
    return found.result(seconds)


def install(*extras: str) -> str:
    """The command that brings the packages of extras; "" is for those of every installation."""
    named = ",".join(extra for extra in extras if extra)
    project = f"'.[{named}]'" if named else "."
    return f"make setup, or: pip install -e {project}"


def reason(error: BaseException) -> str:
    """The innermost reason of a client's fault, as `Connection refused`."""
    while True:
        inner = getattr(error, "reason", None)
        inner = inner if isinstance(inner, BaseException) else error.__cause__
        if inner is None:
            break
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _line(text: str) -> str:
    """The text in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:300]} …"
