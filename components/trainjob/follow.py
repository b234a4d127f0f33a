"""Follow a TrainJob: show its state and the log of its first process until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kubernetes import client

from components.trainjob import CONTAINER, INPUTS, QUEUE
from components.trainjob.api import TrainJobs
from grocer.errors import DeployError, GrocerError, TrainingError
from grocer.events import PREFIX, parse
from grocer.progress import say
from serving.rollout.kubernetes import ChangedError, NotFoundError, UnreachableError

POLL_SECONDS = 5.0
_LOG_MARGIN_SECONDS = 5
_MAX_FAILED_POLLS = 60  # in a row: five minutes without the Kubernetes API


class TrainJob:
    """One TrainJob; `body` is its manifest."""

    def __init__(self, jobs: TrainJobs, body: Mapping[str, Any]) -> None:
        self.jobs, self.body, self.name = jobs, body, body["metadata"]["name"]
        self._ours = False  # created, or adopted
        self._state = ""
        self._pod, self._stamp, self._read_at = "", "", 0.0

    def start(self, upload: Callable[[], None]) -> None:
        """Upload the inputs and create the TrainJob, or adopt an existing one.

        Raises:
            TrainingError: it was created from other inputs.
        """
        while True:
            found = self.jobs.find(self.name)
            if found is None:
                upload()
                self._ours = True
                try:
                    self.jobs.create(self.body)
                except ChangedError:  # by an earlier request, whose response was lost
                    continue
                trainer = self.body["spec"]["trainer"]
                size = (
                    f"{trainer['numNodes']} nodes with {trainer['numProcPerNode']} processes each"
                )
                say("train", f"TrainJob {self.name} created: {size}")
                return
            if "deletionTimestamp" not in found["metadata"]:
                break
            self._show(f"waiting until the earlier TrainJob {self.name} is deleted")
            time.sleep(POLL_SECONDS)
        digest = (found["metadata"].get("annotations") or {}).get(INPUTS)
        if digest != self.body["metadata"]["annotations"][INPUTS]:
            raise TrainingError(
                f"TrainJob {self.name} exists, but was created from other data or another "
                f"configuration; kubectl -n {self.jobs.namespace} delete trainjob {self.name}"
            )
        self._ours = True
        say("train", f"TrainJob {self.name} exists: following it")

    def follow(self) -> None:
        """Show the TrainJob's state and the log of its first process until it completes."""
        failed_polls = 0
        while True:
            try:
                if self._poll():
                    return
                failed_polls = 0
            except UnreachableError as error:
                failed_polls += 1
                if failed_polls > _MAX_FAILED_POLLS:
                    raise
                self._show(f"{error}; trying again")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def deleted(self) -> Iterator[None]:
        """Delete the TrainJob at the end of the block, however it ends, if the block started it."""
        try:
            yield
        finally:
            try:
                if self._ours:
                    self.jobs.delete(self.name)
            except NotFoundError:
                pass
            except DeployError as error:  # must not hide the result of the training
                say("train", f"TrainJob {self.name} not deleted: {error}")

    def _poll(self) -> bool:
        """Show what is new; return whether the TrainJob is complete."""
        job = self.jobs.find(self.name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            raise TrainingError(f"TrainJob {self.name} was deleted; start the run again")
        conditions = {
            each["type"]: each
            for each in job.get("status", {}).get("conditions", [])
            if each["status"] == "True"
        }
        pods = self.jobs.pods(f"jobset.sigs.k8s.io/jobset-name={self.name}")
        self._relay(pods)
        if "Failed" in conditions:
            raise self._failure(pods, conditions["Failed"])
        queue = job["metadata"].get("labels", {}).get(QUEUE)
        if job["spec"].get("suspend"):
            reason = f"waiting for quota of the LocalQueue {queue}" if queue else "by spec.suspend"
            self._show(f"TrainJob suspended: {reason}")
        elif pending := next(filter(None, map(_pending_reason, pods)), None):
            self._show(pending)
        elif running := sum(pod.status.phase == "Running" for pod in pods):
            nodes = job["spec"]["trainer"]["numNodes"]
            self._show(f"TrainJob: {running} of {nodes} pods are running")
        return "Complete" in conditions

    def _show(self, state: str) -> None:
        """Report a state once."""
        if state != self._state:
            self._state = state
            say("train", state)

    def _relay(self, pods: list[client.V1Pod]) -> None:
        """Print what the first node's newest pod has logged since the last call."""
        index = "batch.kubernetes.io/job-completion-index"
        first = [pod for pod in pods if (pod.metadata.labels or {}).get(index) == "0"]
        if not first or first[0].status.phase == "Pending":
            return
        if first[0].metadata.name != self._pod:
            if self._pod:
                say("train", "the TrainJob's pods have started again")
            self._pod, self._stamp = first[0].metadata.name, ""
        now = time.monotonic()
        since = round(now - self._read_at) + _LOG_MARGIN_SECONDS if self._stamp else None
        try:
            lines = self.jobs.log(self._pod, since)
        except DeployError as error:
            # The container has not started, or the pod is gone already.
            if getattr(error.__cause__, "status", None) in (400, 404):
                return
            raise
        self._read_at = now
        for stamp, line in lines:
            if stamp > self._stamp:
                self._stamp = stamp
                _print(line)

    def _failure(self, pods: list[client.V1Pod], condition: Mapping[str, str]) -> Exception:
        """Return the error of the pod that failed first, or else that of the TrainJob."""
        failed = [
            (status.state.terminated.finished_at, pod.metadata.name, status.state.terminated)
            for pod in pods
            for status in pod.status.container_statuses or []
            if status.state.terminated and status.state.terminated.exit_code
        ]
        if not failed or condition["reason"] == "DeadlineExceeded":
            return TrainingError(f"TrainJob {self.name} failed: {condition['message']}")
        _, pod, state = min(failed, key=lambda each: each[:2])
        if state.reason == "OOMKilled":
            return TrainingError(f"pod {pod} was OOMKilled: raise cluster.model_memory")
        line = self.jobs.last_log_line(pod, CONTAINER) or state.reason
        if state.exit_code == GrocerError.exit_code:
            return TrainingError(line.removeprefix("grocer: "))
        return RuntimeError(f"pod {pod} failed with exit code {state.exit_code}: {line}")


def _pending_reason(pod: client.V1Pod) -> str | None:
    """Return why a pod has not started, if its status says so."""
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"pod {pod.metadata.name} not scheduled: {condition.message}"
    for status in pod.status.container_statuses or []:
        waiting = status.state.waiting
        if waiting and waiting.reason not in ("ContainerCreating", "PodInitializing"):
            return f"pod {pod.metadata.name}: {waiting.reason}: {waiting.message}"
    return None


def _print(line: str) -> None:
    """Print a line of a pod's log, unless it is an event of the step's start or end."""
    event = parse(line.partition(PREFIX)[2]) if PREFIX in line else None
    if event is None or event.event in ("message", "progress"):
        print(line, flush=True)
