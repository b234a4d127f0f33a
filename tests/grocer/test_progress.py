"""Progress is reported as events and as readable lines, at a limited rate."""

import pytest

from grocer import progress
from grocer.events import EventFile, Reason
from grocer.progress import Ticker, fail, say, table, verdict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic time in seconds, which only the test advances."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_message_is_one_line(events: EventFile, capsys: pytest.CaptureFixture[str]) -> None:
    say("train", "a\n  b\tc\udcff\x1b[2J")
    fail("train", "no\nloss")
    assert (
        capsys.readouterr().out == "grocer | train | a b c\\udcff?[2J\ngrocer ! train | no loss\n"
    )
    message, failed = events.read()
    assert (message.event, message.text) == ("message", "a b c\\udcff?[2J")
    assert (failed.event, failed.text, failed.user_error) == ("failed", "no loss", True)


def test_table_has_a_message_for_each_row(
    events: EventFile, capsys: pytest.CaptureFixture[str]
) -> None:
    table("check_due", [("condition", "met"), ("30\nd", "no"), ("drift", "")])
    texts = ["condition  met", "30 d       no", "drift"]
    assert capsys.readouterr().out == "".join(f"grocer | check_due | {each}\n" for each in texts)
    assert [event.text for event in events.read()] == texts


def test_verdict_lists_every_rule(events: EventFile, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [
        Reason(rule="accuracy", passed=False, sentence="Test accuracy is 0.7."),
        Reason(rule="gap", passed=True, sentence="The gap is 0.1."),
    ]
    verdict("gate", False, reasons)
    (event,) = events.read()
    assert (event.event, event.passed, list(event.reasons)) == ("verdict", False, reasons)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ", 1)[1] for line in lines] == [
        "gate | FAILED: Test accuracy is 0.7.",
        "gate | passed: The gap is 0.1.",
        "gate | gate FAILED",
    ]


def test_progress_is_reported_at_intervals_and_at_the_end(
    clock: list[float], events: EventFile, capsys: pytest.CaptureFixture[str]
) -> None:
    ticker = Ticker("train", 2000, "products", every=2.0)
    clock[0] += 1.9
    ticker.at(100)
    assert events.read() == []
    clock[0] += 0.1
    ticker.at(500, "loss 0.4")
    (event,) = events.read()
    assert event.text == "500/2,000 products · 250.0/s · 6 s left · loss 0.4"
    assert (event.event, event.done, event.total) == ("progress", 500, 2000)
    assert capsys.readouterr().out == f"grocer | train | {event.text}\n"
    clock[0] += 1.0
    ticker.at(1000)
    assert events.read() == []
    ticker.at(2000)
    (event,) = events.read()
    assert event.text == "2,000/2,000 products · 666.7/s · 0 s left"


def test_slow_rate_is_not_shown_as_zero(clock: list[float], events: EventFile) -> None:
    ticker = Ticker("train", 60, "steps")
    clock[0] += 100.0
    ticker.at(4)
    assert [event.text for event in events.read()] == ["4/60 steps · 0.04/s · 1400 s left"]


def test_rate_excludes_items_of_an_earlier_attempt(clock: list[float], events: EventFile) -> None:
    ticker = Ticker("train", 1000, "products", initial=900)
    clock[0] += 10.0
    ticker.at(950)
    assert [event.text for event in events.read()] == ["950/1,000 products · 5.0/s · 10 s left"]
