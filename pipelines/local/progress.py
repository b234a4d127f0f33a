"""Shows how far a run is: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from pipelines.local.log_events import Event

_PATIENCE = 15.0  # seconds between two such lines where no live line can show them


class Progress:
    """Follows a run's events: a line for each finished step and each fact that a step states."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.step, self.note, self.since, self.said = "", "", 0.0, 0.0
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def follow(self, event: Event) -> None:
        """Show what an event tells."""
        if event.kind == "started":
            self.step, self.note = event.step, ""
            self.since = self.said = time.monotonic()
        elif event.kind == "said":
            self._say(event)
        elif event.kind == "succeeded":
            self._end("✓", "green", event)
        elif event.kind == "broke":
            self._end("✗", "red", event)

    def skip(self, step: str, why: str) -> None:
        """Say that a step did not run."""
        self._print("–", "yellow", step, why)

    def _say(self, event: Event) -> None:
        now = time.monotonic()
        self.note = event.text
        if event.counts and (self.console.is_terminal or now - self.said < _PATIENCE):
            return
        self.said = now
        self._print(" ", "dim", event.step, event.text)

    def _end(self, mark: str, style: str, event: Event) -> None:
        took = event.text or f"{time.monotonic() - self.since:.1f} s"
        self._print(mark, style, event.step, took)
        self.step = ""

    def _print(self, mark: str, style: str, step: str, text: str) -> None:
        line = Text.assemble((mark, style), f" {step:<14} ", (text, "dim" if mark == " " else ""))
        self.console.print(line, soft_wrap=True)

    def _line(self) -> RenderableType:
        """The live line: what runs, for how long, and the last thing that it said."""
        if not self.step:
            return Text("")
        text = f"{self.step:<14} {time.monotonic() - self.since:.0f} s  {self.note}"
        self._spinner.update(text=Text(text, no_wrap=True, overflow="ellipsis"))
        return self._spinner
