"""Only what the steps mean for a person becomes an event; any other output is just log."""

from hypothesis import given
from hypothesis import strategies as st

from grocer import progress as console
from pipelines.local.log_events import Event, Outcome, plain, read

STAMP = "13:18:53.539 - "
CYAN, GREEN, RED, RESET = "\x1b[96m", "\x1b[92m", "\x1b[91m", "\x1b[0m"
START = f"{STAMP}INFO - Executing task {CYAN}'train'{RESET}\n"
GOOD = f"{STAMP}INFO - Task {CYAN}'train'{RESET} finished with status {GREEN}SUCCESS{RESET}\n"
BAD = f"{STAMP}ERROR - Task {CYAN}'train'{RESET} finished with status {RED}FAILURE{RESET}\n"


def test_the_runner_s_lines_are_read_without_their_colours():
    assert read(plain(START)) == Event("started", "train")
    assert read(plain(GOOD)) == Event("succeeded", "train")
    assert read(plain(BAD)) == Event("broke", "train")


def test_what_a_step_says_is_read_behind_a_progress_bar_and_kfp_s_margin(capsys):
    console.say("train", "40/320 · loss 0.41")
    console.fail("train", "no loss")
    said, failed = capsys.readouterr().out.splitlines()
    assert read(f"    {said}") == Event("said", "train", "40/320 · loss 0.41")
    assert read(f"    5%|#   | 1/20{failed}") == Event("failed", "train", "no loss")


@given(st.text())
def test_no_line_breaks_the_reader(text):
    read(plain(text))
    Outcome().take(plain(text))


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\x1b")))
def test_whatever_a_step_says_arrives(text):
    said = " ".join(["rows", *text.split()])
    event = read(plain(f"{console.SAY}train | {said}\n"))
    assert event == Event("said", "train", said)


def test_the_last_lines_are_those_of_the_step_that_broke():
    outcome = Outcome()
    for line in [
        START,
        "    [KFP Executor 2026-11-22 INFO]: Got executor_input:\n",
        "    {\n",
        '        "inputs": {}\n',
        "    }\n",
        "    Traceback (most recent call last):\n",
        "    ZeroDivisionError: division by zero\n",
        BAD,
        "RuntimeError: Pipeline 'grocer' finished with status FAILURE.\n",
    ]:
        outcome.take(plain(line))
    assert list(outcome.last) == [
        "    Traceback (most recent call last):",
        "    ZeroDivisionError: division by zero",
    ]
    assert (outcome.step, outcome.done, outcome.mistake) == ("train", set(), "")


def test_the_steps_that_ended_well_and_the_mistake_are_kept():
    outcome = Outcome()
    for line in [START, GOOD, START.replace("train", "gate"), "grocer ! gate | no column"]:
        outcome.take(plain(line))
    assert (outcome.done, outcome.mistake) == ({"train"}, "no column")
