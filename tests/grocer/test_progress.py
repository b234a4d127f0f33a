"""Protects a step's lines: one a fact, whole, and of progress no more than can be read."""

import pytest

from grocer import progress as console
from grocer.progress import Ticker, fail, say


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def test_a_fact_is_one_line_whatever_is_in_it(capsys):
    say("train", "a\n  b\tc")
    fail("train", "no\nway")
    assert capsys.readouterr().out == "grocer | train | a b c\ngrocer ! train | no way\n"


def test_progress_is_told_now_and_then_and_at_the_end(clock, capsys):
    ticker = Ticker("train", 2000, "products", every=2.0)
    clock[0] += 1.9
    ticker.at(100)
    assert capsys.readouterr().out == ""
    clock[0] += 0.1
    ticker.at(500, "loss 0.4")
    assert capsys.readouterr().out == (
        "grocer | train | 500/2,000 products · 250.0/s · 6 s left · loss 0.4\n"
    )
    clock[0] += 1.0
    ticker.at(1000)
    assert capsys.readouterr().out == ""
    ticker.at(2000)
    assert "2,000/2,000 products · 666.7/s · 0 s left\n" in capsys.readouterr().out


def test_what_an_earlier_attempt_did_is_no_speed_of_this_one(clock, capsys):
    ticker = Ticker("train", 1000, "products", begun=900)
    clock[0] += 10.0
    ticker.at(950)
    assert "950/1,000 products · 5.0/s · 10 s left" in capsys.readouterr().out
