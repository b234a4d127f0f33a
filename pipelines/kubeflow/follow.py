"""Follow a run on Kubeflow: show its steps' states and messages until the gate's verdict."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from grocer.errors import StepError
from grocer.events import Event, split_log
from pipelines.kubeflow.client import Server, read_log, read_running_log
from pipelines.kubeflow.submit import Submitted
from pipelines.local.progress import Progress
from pipelines.local.run import RunError

FINAL = {"SUCCEEDED", "FAILED", "CANCELING", "CANCELED", "SKIPPED"}
CANCELED = {"CANCELING", "CANCELED"}
STARTED = {"RUNNING", "SUCCEEDED", "FAILED"}
EXTRA_POLLS = 3  # after a run's end, until the server has the final state of its steps, too
MAX_FAILED_POLLS = 12  # in a row
LOG_RATE = 100_000  # characters of a running step's log that are read per second
TAIL = 12  # lines of a failed step's log


def follow(server: Server, run: Submitted, progress: Progress, every: float = 5.0) -> Event:
    """Show a run's steps until it ends, and return the verdict of the gate, or of the canary.

    The state is polled every `every` seconds. A step's messages are shown while it runs if
    Kubeflow's API has the logs of running pods, or else when it has ended. A run without a gate
    passes if it succeeds. The verdict has no reasons if Kubeflow does not keep the gate's log.

    Raises:
        StepError: a step failed with a user error.
        RunError: a step failed with an internal error, or the run was canceled.
        ConfigError: the server is unavailable.
    """
    client = server.connect()
    states: dict[str, str] = {}
    logs: dict[str, str] = {}
    names: dict[str, str] = {}
    messages = _Messages()
    final_polls = 0
    for details in _polls(server, client, run.run_id, every):
        state, steps = str(details.state), _steps(details, run.steps, names)
        for name, step in steps.items():
            changes = _changes(name, states.get(name), step)
            if changes and changes[-1].event != "started":
                logs[name] = read_log(client, run.run_id, _node(step))
                changes[-1:-1] = messages.new(name, logs[name])
            elif step.state == "RUNNING" and messages.due(name):
                changes += messages.new(name, read_running_log(client, run.run_id, _node(step)))
            for event in changes:
                progress.follow(event)
            states[name] = str(step.state)
        final_polls += state in FINAL
        # The server updates a run slightly before its last steps.
        if final_polls == EXTRA_POLLS or (final_polls > 1 and "RUNNING" not in states.values()):
            break
    if any(str(each.state) in CANCELED for each in details.state_history or []):
        raise RunError(f"grocer: run canceled; see {run.page}")
    verdicts = {
        step: event
        for step in ("gate", "deploy")
        for event in split_log(logs.get(step, ""))[0]
        if event.event == "verdict"
    }
    if (canary := verdicts.get("deploy")) and not canary.passed:
        return canary
    if states.get("fail_run") != "FAILED" and state != "SUCCEEDED":
        raise _failure(state, states, logs, run.page)
    if canary:
        return canary
    passed = "gate" not in run.steps or states.get("deploy") == "SUCCEEDED"
    if not passed:
        progress.skip("deploy", "skipped: gate failed")
    reasons = verdicts["gate"].reasons if "gate" in verdicts else ()
    return Event(event="verdict", step="gate", passed=passed, reasons=reasons)


class _Messages:
    """The messages in the logs of steps; each is returned once."""

    def __init__(self) -> None:
        self._returned: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def due(self, name: str) -> bool:
        """Return whether to read the log of a running step again: less often the longer it is."""
        return time.monotonic() >= self._due.get(name, 0.0)

    def new(self, name: str, log: str) -> list[Event]:
        """Return the messages of step `name` that were not returned before."""
        self._due[name] = time.monotonic() + len(log) / LOG_RATE
        found = [event for event in split_log(log)[0] if event.event == "message"]
        returned = self._returned.get(name, 0)
        self._returned[name] = max(returned, len(found))
        return found[returned:]


def _polls(server: Server, client: Any, run_id: str, every: float) -> Iterator[Any]:
    """Poll the run's details; tolerate a server that is briefly unavailable."""
    import kfp_server_api
    import urllib3

    failed = 0
    while True:
        try:
            run = client.get_run(run_id)
        except (urllib3.exceptions.HTTPError, kfp_server_api.ApiException):
            failed += 1
            if failed >= MAX_FAILED_POLLS:
                with server.translated_errors():
                    raise
        else:
            failed = 0
            yield run
        time.sleep(every)


def _steps(run: Any, known: frozenset[str], names: dict[str, str]) -> dict[str, Any]:
    """Return the run's started steps by name, oldest first.

    A step that runs several times is numbered. `names` keeps the name of each task id, because
    tasks that start in the same second have no order.
    """
    details = (run.run_details and run.run_details.task_details) or []
    steps: dict[str, Any] = {}
    # The creation time of every task is that of the run.
    for each in sorted(details, key=lambda each: str(each.start_time)):
        # A step is an Argo task; its driver's task shows a step that could not start. Tasks
        # without a name or a state are records of the launcher for the cache.
        task = (each.display_name or "").removesuffix("-driver")
        is_step = task == each.display_name
        if task in known and each.state in STARTED and (is_step or each.state == "FAILED"):
            if each.task_id not in names:
                name = task.replace("-", "_")
                number = sum(other.split()[0] == name for other in names.values()) + 1
                names[each.task_id] = name if number == 1 else f"{name} {number}"
            steps[names[each.task_id]] = each
    return steps


def _changes(name: str, before: str | None, step: Any) -> list[Event]:
    """Return the events of a step whose state was `before`."""
    now = str(step.state)
    if before == now:
        return []
    events = [] if before == "RUNNING" else [Event(event="started", step=name)]
    if now != "RUNNING":
        kind = "succeeded" if now == "SUCCEEDED" else "failed"
        times = step.start_time, step.end_time
        seconds = (times[1] - times[0]).total_seconds() if all(times) else None
        events.append(Event(event=kind, step=name, seconds=seconds))
    return events


def _node(step: Any) -> str:
    """Return the name of the step's Argo node, under which its log is stored."""
    return next((child.pod_name for child in step.child_tasks or [] if child.pod_name), "none")


def _failure(
    state: str, states: Mapping[str, str], logs: Mapping[str, str], page: str
) -> StepError | RunError:
    """Return the error of a failed run."""
    failed = [name for name, state in states.items() if state == "FAILED"]
    for name in failed:
        reported, output = split_log(logs[name])
        failure = next((event for event in reported if event.event == "failed"), None)
        if failure and failure.user_error:
            return StepError(f"step {name} failed: {failure.text}; see {page}")
        if output:
            reason = f": {failure.text}" if failure else ""
            tail = "\n".join(output[-TAIL:])
            return RunError(f"{tail}\ngrocer: step {name} failed{reason}; see {page}")
    if failed:
        names = ", ".join(failed)
        return RunError(
            f"grocer: step {names} failed without a log: see its pod's events and {page}"
        )
    return RunError(f"grocer: run ended in state {state}; see {page}")
