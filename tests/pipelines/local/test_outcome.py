"""The outcome of a run names the step that failed, and why."""

from grocer.events import Event
from pipelines.local.outcome import Outcome

STARTED = Event(event="started", step="train")
SUCCEEDED = Event(event="succeeded", step="train")
INTERNAL = Event(event="failed", step="train", text="ZeroDivisionError: division by zero")


def outcome(*events: Event) -> Outcome:
    result = Outcome()
    for event in events:
        result.add(event)
    return result


def test_failed_step_is_named():
    assert "step train failed: ZeroDivisionError" in outcome(STARTED, INTERNAL).failed_step
    assert "step train was killed" in outcome(STARTED).failed_step
    assert "after step train" in outcome(STARTED, SUCCEEDED).failed_step
    assert outcome().failed_step == "the pipeline failed"
