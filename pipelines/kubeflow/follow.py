"""Follows a run on Kubeflow: what its steps say, how they end, and what the gate decided."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from grocer.errors import StepError
from pipelines.kubeflow.client import Server, log_of
from pipelines.kubeflow.submit import Submitted
from pipelines.kubeflow.verdict import Verdict, reasons_in
from pipelines.local.log_events import Event, Outcome, plain
from pipelines.local.progress import Progress
from pipelines.local.run import RunError

ENDED = {"SUCCEEDED", "FAILED", "CANCELING", "CANCELED", "SKIPPED"}
CANCELED = {"CANCELING", "CANCELED"}
BEGUN = {"RUNNING", "SUCCEEDED", "FAILED"}
SETTLED = 3  # polls after a run's end by which the server has told the ends of its steps, too
PATIENCE = 12  # polls in a row that may fail before following gives up


def follow(server: Server, run: Submitted, progress: Progress, every: float = 5.0) -> Verdict:
    """Show a run's steps until it ends; a run without a gate passes when it ends well.

    Steps are seen to change every so many seconds, and what one said is shown when it has ended:
    Kubeflow's API has the logs of ended steps only.

    Raises:
        StepError: a step ended with a mistake of the user's; the message is the step's own.
        RunError: a step broke, or the run was canceled.
        ConfigError: the server has been away for too long.
    """
    client = server.connect()
    shown: dict[str, str] = {}
    logs: dict[str, str] = {}
    names: dict[str, str] = {}
    ends = 0
    for found in _polls(server, client, run.run_id, every):
        state, steps = str(found.state), _steps(found, run.steps, names)
        for name, step in steps.items():
            changed = _changed(name, shown.get(name), step)
            if changed and changed[-1].kind != "started":
                logs[name] = log_of(client, run.run_id, _node(step))
                changed[-1:-1] = _said(logs[name])
            for event in changed:
                progress.follow(event)
            shown[name] = str(step.state)
        ends += state in ENDED
        # The server tells a run's end a moment before those of its last steps.
        if ends == SETTLED or (ends > 1 and "RUNNING" not in shown.values()):
            break
    if any(str(each.state) in CANCELED for each in found.state_history or []):
        raise RunError(f"grocer: the run was canceled; its page: {run.page}")
    if shown.get("fail-run") != "FAILED" and state != "SUCCEEDED":
        raise _failure(state, shown, logs, run.page)
    if "gate" not in run.steps:
        return Verdict(True, [])
    passed = shown.get("deploy") == "SUCCEEDED"
    if not passed:
        progress.skip("deploy", "skipped: the gate said no")
    return Verdict(passed, reasons_in(logs.get("gate", "")))


def _polls(server: Server, client: Any, run_id: str, every: float) -> Iterator[Any]:
    """The run, again and again; a server that is away for a while does not end it."""
    import kfp_server_api
    import urllib3

    missed = 0
    while True:
        try:
            run = client.get_run(run_id)
        except (urllib3.exceptions.HTTPError, kfp_server_api.ApiException):
            missed += 1
            if missed >= PATIENCE:
                with server.explained():
                    raise
        else:
            missed = 0
            yield run
        time.sleep(every)


def _steps(run: Any, known: frozenset[str], names: dict[str, str]) -> dict[str, Any]:
    """The run's steps that have begun, by name, oldest first.

    One that runs several times has a number, too: `names` keeps it by the task's id, as several
    that begin in one second have no order of their own.
    """
    details = (run.run_details and run.run_details.task_details) or []
    steps: dict[str, Any] = {}
    # The server says of every task that it was created when the run was.
    for each in sorted(details, key=lambda each: str(each.start_time)):
        # A step is its Argo task; that of its driver says where it could not even begin. A task
        # without a name or a state is a note of the launcher's for the cache.
        name = (each.display_name or "").removesuffix("-driver")
        began = name == each.display_name
        if name in known and each.state in BEGUN and (began or each.state == "FAILED"):
            if each.task_id not in names:
                number = sum(other.split()[0] == name for other in names.values()) + 1
                names[each.task_id] = name if number == 1 else f"{name} {number}"
            steps[names[each.task_id]] = each
    return steps


def _changed(name: str, before: str | None, step: Any) -> list[Event]:
    """What a change of state means to someone who watches."""
    now = str(step.state)
    if before == now:
        return []
    events = [] if before == "RUNNING" else [Event("started", name)]
    if now != "RUNNING":
        events.append(Event("succeeded" if now == "SUCCEEDED" else "broke", name, _time(step)))
    return events


def _time(step: Any) -> str:
    if not (step.start_time and step.end_time):
        return ""
    return f"{(step.end_time - step.start_time).total_seconds():.0f} s"


def _node(step: Any) -> str:
    """Argo's name of what ran in the step, by which its log is kept."""
    return next((child.pod_name for child in step.child_tasks or [] if child.pod_name), "none")


def _said(log: str) -> list[Event]:
    """The facts that a step stated; its ticks of progress are old by now."""
    events = [Outcome().take(plain(line)) for line in log.splitlines()]
    return [event for event in events if event and event.kind == "said" and not event.counts]


def _failure(
    state: str, shown: Mapping[str, str], logs: Mapping[str, str], page: str
) -> StepError | RunError:
    """What a run that did not end well is to raise."""
    failed = [name for name, ended in shown.items() if ended == "FAILED"]
    for name in failed:
        outcome = Outcome()
        for line in logs[name].splitlines():
            outcome.take(plain(line))
        if outcome.mistake:
            return StepError(f"{name}: {outcome.mistake}; its page: {page}")
        if outcome.last:
            last = "\n".join(outcome.last)
            return RunError(f"{last}\ngrocer: {name} broke; its page: {page}")
    who = f"{', '.join(failed)} broke and left no log" if failed else f"the run ended {state}"
    return RunError(f"grocer: {who}: see its pod's events, and its page: {page}")
