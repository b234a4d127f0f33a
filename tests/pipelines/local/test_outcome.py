"""The outcome of a run names the step that failed, and why."""

from grocer.events import Event
from pipelines.local.outcome import Outcome

STARTED = Event(event="started", step="train")
SUCCEEDED = Event(event="succeeded", step="train")
INTERNAL = Event(event="failed", step="train", text="ZeroDivisionError: division by zero")
USER = Event(event="failed", step="train", text="no column", user_error=True)


def outcome(*events: Event) -> Outcome:
    result = Outcome()
    for event in events:
        result.add(event)
    return result


def test_failure_of_the_user_is_kept():
    assert outcome(STARTED, USER).user_error == "no column"
    assert outcome(STARTED, INTERNAL).user_error == ""


def test_failed_step_is_named():
    assert "step train failed: ZeroDivisionError" in outcome(STARTED, INTERNAL).failed_step
    assert "step train was killed" in outcome(STARTED).failed_step
    assert "after step train" in outcome(STARTED, SUCCEEDED).failed_step
    assert outcome().failed_step == "the pipeline failed"


def test_steps_that_succeeded_are_kept():
    assert outcome(STARTED, SUCCEEDED, Event(event="started", step="gate")).succeeded == ["train"]
