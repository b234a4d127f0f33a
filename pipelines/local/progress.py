"""Shows the progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from grocer.events import Event

_INTERVAL = 15.0  # seconds between two progress lines where there is no live line


class Progress:
    """Prints a line for each finished step and each message of a step."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._step, self._text = "", ""
        self._started = self._printed = 0.0
        self._spinner = Spinner("dots")
        self._live = Live(
            console=self.console,
            get_renderable=self._line,
            refresh_per_second=5,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def follow(self, event: Event) -> None:
        """Show an event."""
        match event.event:
            case "started":
                self._step, self._text = event.step, ""
                self._started = self._printed = event.time
            case "message":
                self._text, self._printed = event.text, event.time
                self._print(" ", "dim", event.step, event.text)
            case "progress":
                self._text = event.text
                if not self.console.is_terminal and event.time - self._printed >= _INTERVAL:
                    self._printed = event.time
                    self._print(" ", "dim", event.step, event.text)
            case "verdict":
                failed = sum(not reason.passed for reason in event.reasons)
                subject = "canary" if event.step == "deploy" else event.step
                text = (
                    f"{subject} passed"
                    if event.passed
                    else f"{subject} failed: {failed} of {len(event.reasons)} rules"
                )
                self._print(" ", "dim", event.step, text)
            case "succeeded":
                self._end("✓", "green", event)
            case "failed":
                self._end("✗", "red", event)

    def skip(self, step: str, reason: str) -> None:
        """Show that a step did not run."""
        self._print("–", "yellow", step, reason)

    def _end(self, mark: str, style: str, event: Event) -> None:
        seconds = event.time - self._started if event.seconds is None else event.seconds
        self._print(mark, style, event.step, f"{seconds:.1f} s")
        self._step = ""

    def _print(self, mark: str, style: str, step: str, text: str) -> None:
        line = Text.assemble((mark, style), f" {step:<14} ", (text, "dim" if mark == " " else ""))
        self.console.print(line, soft_wrap=True)

    def _line(self) -> RenderableType:
        """Return the live line: the running step, its duration and its last message."""
        if not self._step:
            return Text("")
        text = f"{self._step:<14} {time.time() - self._started:.0f} s  {self._text}"
        self._spinner.update(text=Text(text, no_wrap=True, overflow="ellipsis"))
        return self._spinner
