"""The outcome of a run, from the events of its steps."""

from __future__ import annotations

from collections import deque

from grocer.events import Event


class Outcome:
    """Collects what is needed to explain how a run ended."""

    def __init__(self) -> None:
        self.running = ""
        """The step that has started but neither succeeded nor failed."""
        self.failure: Event | None = None
        self.succeeded: list[str] = []
        self.tail: deque[str] = deque(maxlen=12)
        """The last lines of output."""

    def add(self, event: Event) -> None:
        """Record an event."""
        match event.event:
            case "started":
                self.running = event.step
            case "succeeded":
                self.running = ""
                self.succeeded.append(event.step)
            case "failed":
                self.running = ""
                self.failure = event

    @property
    def user_error(self) -> str:
        """The message of a step that failed because of its input or configuration."""
        return self.failure.text if self.failure and self.failure.user_error else ""

    @property
    def failed_step(self) -> str:
        """Description of the failed step; a step that was killed did not report its failure."""
        if self.failure:
            return f"step {self.failure.step} failed: {self.failure.text}"
        if self.running:
            return f"step {self.running} was killed or crashed, possibly out of memory"
        after = f" after step {self.succeeded[-1]}" if self.succeeded else ""
        return f"the pipeline failed{after}"
