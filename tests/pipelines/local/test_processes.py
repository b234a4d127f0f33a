"""No process of a run outlives it."""

import os
import signal
import sys
from contextlib import suppress

import pytest

from pipelines.local import processes

PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
"""

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


def is_running(pid: int) -> bool:
    with suppress(FileNotFoundError), open(f"/proc/{pid}/stat") as stat:
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


@pytest.mark.parametrize("end", ["", "time.sleep(600)"])
def test_grandchild_ends_with_the_block(end):
    command = [sys.executable, "-c", PARENT + end]
    with processes.supervised(command, os.environ) as process:
        grandchild = int(process.stdout.readline())
        assert is_running(grandchild)
    assert not is_running(grandchild)
    assert process.returncode is not None


def test_process_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(processes, "GRACE", 0.2)
    with processes.supervised([sys.executable, "-c", IGNORES_SIGTERM], os.environ) as process:
        process.stdout.readline()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_interrupts_and_handlers_are_restored(number):
    # SIGHUP is ignored if the tests run under nohup.
    with processes._handling([signal.SIGHUP], signal.SIG_DFL):
        before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
        with pytest.raises(KeyboardInterrupt), processes.interruptible():
            os.kill(os.getpid(), number)
        assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == before


def test_ignored_sighup_stays_ignored():
    with processes._handling([signal.SIGHUP], signal.SIG_IGN), processes.interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_signals_are_ignored_during_clean_up():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with processes.undisturbed():
        for number in numbers:
            os.kill(os.getpid(), number)
    assert [signal.getsignal(number) for number in numbers] == before
