"""Progress prints messages and finished steps; counts only where they are useful."""

import io

from rich.console import Console

from grocer.events import Event, Reason
from pipelines.local.progress import Progress


def output(*events, terminal=False):
    """Return what the console prints, without colours."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, color_system=None)
    with Progress(console) as progress:
        for event in events:
            progress.follow(event) if isinstance(event, Event) else progress.skip(*event)
    return file.getvalue()


def train(kind, time=0.0, **fields):
    return Event(event=kind, step="train", time=time, **fields)


STARTED = train("started")
SUCCEEDED = train("succeeded", 90.0, seconds=12.34)
MESSAGE = train("message", 1.0, text="fp16: compute capability 7.5 has no bf16")
COUNTS = [train("progress", 1.0 + n, text=f"{n}/9 steps · 2.0/s") for n in range(1, 9)]


def test_pipe_gets_messages_and_finished_steps():
    message, end = output(STARTED, MESSAGE, *COUNTS, SUCCEEDED).splitlines()
    assert message.split() == ["train", *MESSAGE.text.split()]
    assert end.split() == ["✓", "train", "12.3", "s"]


def test_pipe_gets_counts_at_intervals():
    slow = [count.model_copy(update={"time": count.time * 5}) for count in COUNTS]
    assert 1 < output(STARTED, *slow, SUCCEEDED).count("steps") < len(COUNTS)


def test_terminal_keeps_messages_and_finished_steps():
    text = output(STARTED, MESSAGE, *COUNTS, SUCCEEDED, terminal=True)
    kept = [line for line in text.splitlines() if MESSAGE.text in line or "✓ train" in line]
    assert len(kept) == 2
    # Counts are only on the live line, which is drawn a few times a second.
    assert text.count("steps") < len(COUNTS)


def test_failed_step_shows_its_duration():
    assert output(STARTED, train("failed", 2.5)).split() == ["✗", "train", "2.5", "s"]


def test_verdict_counts_the_failed_rules():
    reasons = [Reason(rule=str(n), passed=n > 1, sentence="") for n in range(4)]
    verdict = Event(event="verdict", step="gate", passed=False, reasons=reasons)
    assert "2 of 4 rules" in output(verdict)
    assert "gate passed" in output(verdict.model_copy(update={"passed": True}))


def test_skipped_step_is_shown():
    text = output(("deploy", "skipped: gate failed"))
    assert text.split(maxsplit=2) == ["–", "deploy", "skipped: gate failed\n"]
