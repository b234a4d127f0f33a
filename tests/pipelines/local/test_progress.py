"""What is shown while a run works: facts and finished steps; counting only where it is of use."""

import io

from rich.console import Console

from pipelines.local import progress
from pipelines.local.log_events import Event
from pipelines.local.progress import Progress


def shown(*events, terminal=False):
    """What a console gets, without its colours."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, color_system=None)
    with Progress(console) as shows:
        for event in events:
            shows.follow(event)
    return file.getvalue()


STARTED, ENDED = Event("started", "train"), Event("succeeded", "train")
FACT = Event("said", "train", "fp16: compute capability 7.5 has no bf16")
COUNTS = [Event("said", "train", f"{n}/9 steps · 2.0/s") for n in range(1, 9)]


def test_a_pipe_gets_plain_lines_without_a_line_for_each_count():
    lines = shown(STARTED, FACT, *COUNTS, ENDED).splitlines()
    assert [line.split() for line in lines[:-1]] == [["train", *FACT.text.split()]]
    assert lines[-1].split()[:2] == ["✓", "train"]


def test_a_pipe_gets_a_count_now_and_then(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    assert shown(STARTED, *COUNTS, ENDED).count("steps") == len(COUNTS)


def test_a_terminal_gets_facts_and_finished_steps_for_good(monkeypatch):
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    text = shown(STARTED, FACT, *COUNTS, ENDED, terminal=True)
    kept = [line for line in text.splitlines() if FACT.text in line or "✓ train" in line]
    assert len(kept) == 2
    # Counts are on the live line alone, which is drawn a few times a second.
    assert text.count("steps") < len(COUNTS)


def test_a_step_that_broke_and_one_that_was_skipped_are_told_apart():
    file = io.StringIO()
    with Progress(Console(file=file, width=80)) as shows:
        shows.follow(STARTED)
        shows.follow(Event("broke", "train"))
        shows.skip("deploy", "skipped: the gate said no")
    first, second = file.getvalue().splitlines()
    assert first.startswith("✗ train")
    assert second.split(maxsplit=2) == ["–", "deploy", "skipped: the gate said no"]
