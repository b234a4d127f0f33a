"""No process of a run outlives it."""

import os
import signal
import sys
from contextlib import suppress

import pytest

from pipelines.local import processes as supervise

CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    with suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize("end", ["", "time.sleep(600)"])
def test_a_grandchild_ends_with_the_block(end):
    command = [sys.executable, "-c", CHILD + end]
    with supervise.supervised(command, os.environ) as process:
        grandchild = int(process.stdout.readline())
        assert lives(grandchild)
    assert not lives(grandchild)
    assert process.returncode is not None


def test_one_that_does_not_heed_is_killed(monkeypatch):
    monkeypatch.setattr(supervise, "GRACE", 0.2)
    with supervise.supervised([sys.executable, "-c", STUBBORN], os.environ) as process:
        process.stdout.readline()
    assert process.returncode == -signal.SIGKILL


@pytest.fixture
def heard():
    """SIGHUP as it comes, should the tests run under nohup."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_ends_a_run_interrupts_it(number, heard):
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    with pytest.raises(KeyboardInterrupt), supervise.interruptible():
        os.kill(os.getpid(), number)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_a_hang_up_that_is_to_be_ignored_is_ignored():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with supervise.interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_second_one_does_not_disturb_the_clearing_up():
    with supervise.undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
