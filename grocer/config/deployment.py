"""Configuration sections of the predictor, the rollout and the cluster.

They do not affect training. Secrets are never settings: a setting names the Kubernetes Secret.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from grocer.config.base import Fraction, Positive, Section

DEPLOY_SECRET = "grocer-deploy"  # token of the account that may change the InferenceService
DEPLOY_TOKEN = "/var/run/secrets/grocer-deploy"  # where the deploy step mounts it
SIGNING_SECRET = "grocer-signing-key"  # optional; its key `key.pem` signs bundles
SIGNING_KEY = "/var/run/secrets/grocer-signing-key"  # where the deploy step mounts it
TRUST_CONFIG = "grocer-trust"  # optional ConfigMap: the files of grocer/release/trust.py
HUB_TOKEN_SECRET = "grocer-hub-token"  # optional; its key `token` is the Hub's access token
REGISTRY_SECRET = "grocer-registry-token"  # optional; its key `token` is for registry.address
REGISTRY_TOKEN = "MODEL_REGISTRY_TOKEN"  # environment variable with that token


_STORE = r"^((s3|gs)://[^/]+(/.*)?|oci(\+native)?://[^/@]+(/[a-z0-9._-]+)+)$"


def _quantity(value: Any) -> Any:
    """Return a number as text: Kubernetes accepts both."""
    return str(value) if type(value) in (int, float) else value


def _percentages(value: Any) -> Any:
    """Return a percentage, a list of them, or text such as `5,25,50` as a tuple; 0 is empty."""
    if isinstance(value, str) and value.replace(",", "").isdigit():
        value = [int(part) for part in value.split(",") if part]
    if type(value) is int:
        value = [value] if value else []
    return tuple(value) if isinstance(value, list) else value


Memory = Annotated[str, Field(pattern=r"^[0-9]+([KMGTPE]i?)?$"), BeforeValidator(_quantity)]
Cpu = Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?|[0-9]+m)$"), BeforeValidator(_quantity)]
Percentages = Annotated[
    tuple[Annotated[int, Field(ge=1, lt=100)], ...], BeforeValidator(_percentages)
]
NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"  # DNS-1123 label
Name = Annotated[str, Field(pattern=NAME)]


class ServingConfig(Section):
    """Limits of the predictor."""

    batch_wait_ms: ClassVar[float] = 2.0  # how long a forward pass that is not full waits for items
    drift_window: ClassVar[int] = 10_000  # latest predictions that the drift metrics describe
    explain_items: ClassVar[int] = 16
    explain_words: ClassVar[int] = 40  # each word costs one more item in a forward pass
    max_name_characters: ClassVar[int] = 1000  # five times what a prompt shows
    top_k: ClassVar[int] = 3  # alternatives of a prediction, unless the request sets its own

    max_items: Positive = 1024
    """Maximum items per request (400); limits of the queue and of in-flight requests follow."""
    max_body_bytes: Positive = 8 * 1024**2
    """Maximum bytes of a request body (413)."""
    body_seconds: Annotated[float, Field(gt=0.0)] = 10.0
    """Time limit in seconds for receiving a request body (408), and for receiving the headers and
    reading the response, beyond which the connection is closed."""
    token_budget: Positive = 512
    """Maximum name tokens per forward pass: more for throughput on a GPU, fewer for latency."""
    queue_seconds: Annotated[float, Field(gt=0.0)] = 0.1
    """Maximum expected time in the queue, in seconds; a request that would wait longer gets 429."""
    deadline_seconds: Annotated[float, Field(gt=0.0)] = 30.0
    """Time limit in seconds from a request's arrival to its response (504)."""
    drain_seconds: Annotated[float, Field(ge=0.0)] = 3.0
    """Seconds after SIGTERM in which readiness is false but requests are still accepted."""
    low_confidence: Fraction = 0.5
    """Predictions with a lower probability are counted as low-confidence."""
    ui: bool = False
    """Serve an interactive page at `/ui`."""

    @property
    def max_requests(self) -> int:
        """Maximum in-flight requests (429)."""
        return 2 * self.max_items

    @property
    def queue_items(self) -> int:
        """Maximum items in the queue (429)."""
        return 4 * self.max_items

    @property
    def stall_seconds(self) -> float:
        """Time limit in seconds of one forward pass; beyond it, the server exits."""
        return 4 * self.deadline_seconds

    @property
    def grace_seconds(self) -> int:
        """Seconds in which in-flight requests may complete once the port is closed."""
        return math.ceil(self.deadline_seconds)


class DeployConfig(Section):
    """Deployment of an adapter that passed the gate."""

    store: Annotated[str, Field(pattern=_STORE)] | None = None
    """Where KServe finds the bundles: an object store, `s3://bucket/prefix`, or an OCI registry,
    `oci://registry/repository`; null: no rollout, only a smoke test of the predictor in the deploy
    step."""
    signing_key: Annotated[str, Field(pattern=r"^(env:[A-Za-z_][A-Za-z0-9_]*|[^:]+)$")] | None = (
        None
    )
    """Key that signs the bundle: a PEM file with an EC private key and its certificates, if any, or
    `env:NAME`, an environment variable with its content; `sigstore`: the identity of the machine or
    of SIGSTORE_ID_TOKEN. null: the Secret `grocer-signing-key` if there is one, else unsigned."""
    namespace: Name = "grocer"
    """Namespace of the InferenceService."""
    name: Name = "grocer"
    """Name of the InferenceService and its ServingRuntime, created by manifests/."""
    canary: Percentages = ()
    """Percentages of the traffic for a new bundle next to the current one, ascending; several
    require `deploy.analysis`; empty: replace the current bundle."""
    analysis: bool = False
    """Compare the canary with the stable bundle at each percentage, then promote it or roll it
    back; false: it keeps its percentage until `grocer promote` or `grocer rollback`."""
    analysis_requests: Annotated[int, Field(ge=100)] = 500
    """Requests that each of the two must answer at each percentage."""
    analysis_seconds: Annotated[float, Field(gt=0.0)] = 3600.0
    """Time limit in seconds for these requests, after which the canary is rolled back."""
    address: Annotated[str, Field(pattern=r"^https?://")] | None = None
    """URL of the predictor from outside the cluster (`kubectl port-forward`), or at the gateway,
    which the component `scale-to-zero` requires; null: its Service."""
    timeout_seconds: Annotated[float, Field(gt=0.0)] = 900.0
    """Time limit of a rollout in seconds, after which it is rolled back."""

    @model_validator(mode="after")
    def _steps_are_valid(self) -> Self:
        if list(self.canary) != sorted(set(self.canary)):
            raise ValueError("canary: the percentages must ascend")
        if len(self.canary) > 1 and not self.analysis:
            raise ValueError("canary: several percentages require analysis=true (--analysis)")
        if self.analysis and not self.canary:
            raise ValueError("analysis requires canary, the percentages of the traffic")
        return self

    @property
    def service(self) -> str:
        """Namespace and name of the InferenceService, for messages."""
        return f"{self.namespace}/{self.name}"

    @property
    def effective_signing_key(self) -> str | None:
        """`signing_key`, or the file of the mounted Secret."""
        mounted = Path(SIGNING_KEY, "key.pem")
        return self.signing_key or (str(mounted) if mounted.is_file() else None)


class RegistryConfig(Section):
    """Kubeflow Model Registry, in which runs register their verdicts."""

    address: Annotated[str, Field(pattern=r"^https?://[^/@?#]+/?$")] | None = None
    """URL of its REST API, for example `http://model-registry-service.kubeflow:8080`; null: off."""


class ClusterConfig(Section):
    """Kubernetes settings of the compiled pipeline."""

    # Of train, evaluate and the shards of bulk runs, with exponential backoff. Other steps fail for
    # reasons that a retry does not change.
    retries: ClassVar[int] = 2

    accelerator: Literal["nvidia.com/gpu"] | None = "nvidia.com/gpu"
    """Resource of train and evaluate, one each, and the taint they tolerate; null: CPU only."""
    node_selector: Mapping[str, str] = {"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}
    """Node labels that train and evaluate require if they use an accelerator."""
    model_memory: Memory = "24Gi"
    """Memory request and limit of evaluate and of each process of train; raise it if a step is
    OOMKilled."""
    model_cpu: Cpu = "4"
    """CPU request and limit of evaluate and of each process of train."""
    data_cpu: Cpu = "2"
    """CPU request and limit of the other steps."""
    model_timeout_seconds: Positive = 86_400
    """Time limit in seconds of one attempt of train or evaluate. Other steps get a twelfth of it,
    the whole run three times as much, including the wait for a node."""
    queue: Name | None = None
    """LocalQueue of Kueue in which the TrainJob and the steps' pods wait for quota; null: none."""
    fail_if_gate_fails: bool = False
    """End a run as failed if its gate fails, for schedulers that alert on failed runs."""
    store_secret: Name = "grocer-s3"
    """Secret with the object store's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and ConfigMap
    with its AWS_ENDPOINT_URL and AWS_REGION; both are optional."""

    @property
    def data_timeout_seconds(self) -> int:
        """Time limit of one attempt of the other steps."""
        return max(1, self.model_timeout_seconds // 12)

    @property
    def run_timeout_seconds(self) -> int:
        """Time limit of a whole run."""
        return 3 * self.model_timeout_seconds
