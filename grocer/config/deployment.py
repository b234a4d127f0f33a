"""The sections of a run's configuration that say where an adapter runs, and within which limits.

They change nothing about which adapter comes out. Secrets never appear here: a field that needs
one names the Kubernetes Secret that holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from grocer.config.base import Fraction, Positive, Section


def _text(value: Any) -> Any:
    """A quantity may be a bare number, as in Kubernetes."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if number else value


Memory = Annotated[str, Field(pattern=r"^[0-9]+([KMGTPE]i?)?$"), BeforeValidator(_text)]
Cpu = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$"), BeforeValidator(_text)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]  # in Kubernetes


class ServingConfig(Section):
    """Limits of the predictor."""

    max_items: Positive = 1024
    """Items in a request; more are refused (400)."""
    max_name_characters: Positive = 1000
    """Characters in a name; longer ones are refused (400)."""
    max_body_bytes: Positive = 8 * 1024**2
    """Bytes in a request's body; a larger one is refused (413)."""
    max_requests: Positive = 2000
    """Requests in hand at once, before any is read; more are told to come back (429)."""
    body_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    """Seconds that a client has to send its body, or 408."""
    token_budget: Positive = 512
    """Tokens of names in one forward pass; bounds its memory and how long others wait for it."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for torch; 0: one less than the cores, which leaves one for the requests."""
    batch_wait_ms: Annotated[float, Field(ge=0.0)] = 2.0
    """How long a forward pass waits for more requests to share it, in milliseconds."""
    queue_items: Positive = 4096
    """Items waiting for a forward pass; a request that exceeds it is told to come back (429)."""
    queue_seconds: Annotated[float, Field(gt=0.0)] = 0.1
    """A request that would wait longer than this behind others, in seconds as passes go at
    present, is told to come back too (429); the next pass is open to all."""
    deadline_seconds: Annotated[float, Field(gt=0.0)] = 30.0
    """Seconds from a request's arrival to its answer, or 504."""
    stall_seconds: Annotated[float, Field(gt=0.0)] = 120.0
    """A forward pass that takes more seconds than this means a failed device: the server ends."""
    drain_seconds: Annotated[float, Field(ge=0.0)] = 3.0
    """Seconds after SIGTERM of not being ready but still answering, as long as routers may send
    requests."""
    grace_seconds: Positive = 25
    """Seconds for what is in flight once the port is closed."""
    top_k: Positive = 3
    """Alternatives in an answer, itself among them, unless the request says otherwise."""
    low_confidence: Fraction = 0.5
    """Answers below this probability are counted as of low confidence."""
    drift_window: Positive = 10_000
    """Latest answers that the drift metrics look at."""
    explain_items: Positive = 16
    """Items in a request for explanations; each is scored again without each word."""
    explain_words: Positive = 40
    """Words that an explained name may have."""
    ui: bool = False
    """Whether there is a page for a person at `/ui`."""
    smoke_names: tuple[str, ...] = ()
    """Names that deploy asks the new predictor for; none: the test products bought most."""


class DeployConfig(Section):
    """Where a passed adapter goes."""

    store: Annotated[str, Field(pattern=r"^(s3|gs)://[^/]+(/.*)?$")] | None = None
    """Where bundles are published, as `s3://bucket/prefix`, before KServe rolls one out; null:
    the predictor is only started beside the deploy step and asked there."""
    namespace: Name = "grocer"
    """Namespace of the InferenceService."""
    name: Name = "grocer"
    """The InferenceService, as manifests/ makes it; deploy only changes which bundle it serves."""
    runtime: Name = "grocer"
    """The ServingRuntime that it is to use."""
    canary: Annotated[int, Field(ge=0, lt=100)] = 0
    """Percent of requests that a new bundle gets beside the former one; 0: it takes its place."""
    address: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """Where the new predictor is asked, for whoever is not in the cluster, as by `kubectl
    port-forward`; null: at its Service."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 900.0
    """Seconds that a rollout may take, from the first pod to the last, before it is undone."""


class ClusterConfig(Section):
    """What the compiled pipeline asks of Kubernetes."""

    accelerator: Literal["nvidia.com/gpu"] | None = "nvidia.com/gpu"
    """Resource that train and evaluate ask for, one each; null: they run on any node's CPU."""
    node_selector: Mapping[str, str] = {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    """Labels of the GPU node."""
    toleration_key: str = "nvidia.com/gpu"
    """Taint of the GPU node that train and evaluate tolerate."""
    model_memory: Memory = "24Gi"
    """Memory limit of train and evaluate."""
    model_cpu: Cpu = "4"
    """CPU limit of train and evaluate."""
    data_memory: Memory = "1536Mi"
    """Memory limit of the other steps."""
    data_cpu: Cpu = "2"
    """CPU limit of the other steps."""
    retries: Annotated[int, Field(ge=0)] = 2
    """Retries of a step after its first failure, each after a longer wait."""
    model_timeout_seconds: Positive = 86_400
    """Seconds that an attempt of train or evaluate may run, once it has a node."""
    data_timeout_seconds: Positive = 7_200
    """Seconds that an attempt of another step may run; deploy has `deploy.timeout_seconds` besides,
    for the rollout and again for what it takes to undo one."""
    run_timeout_seconds: Positive = 259_200
    """Seconds that a run may take in all, waits for a node included."""
    fail_on_no: bool = False
    """Whether a run ends as failed where the gate says no, for schedulers that want to see red."""
    hub_token_secret: Name = "grocer-hub-token"
    """Secret whose key `token` becomes the Hub token's environment variable, if it exists."""
    store_secret: Name = "grocer-s3"
    """Secret with the object store's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, if it exists."""
    store_config: Name = "grocer-s3"
    """ConfigMap with the object store's AWS_ENDPOINT_URL and AWS_REGION, if it exists."""
    checkpoints_claim: Name | None = None
    """PersistentVolumeClaim that train keeps its checkpoints on, which user 1000 may write; null:
    `train.checkpoints` says."""
    base_claim: Name | None = None
    """PersistentVolumeClaim with the base's weights, at /mnt/base of train and evaluate; name it
    in `base.source=/mnt/base` too."""
