"""Training as a TrainJob of Kubeflow Trainer, which the train step creates, follows and deletes."""

from grocer.config.run import RunConfig
from grocer.errors import ConfigError

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
RUNTIME, CONTAINER = "grocer", "node"
"""The TrainingRuntime in manifests/trainer; its container, and the name of its job."""
INPUTS, QUEUE = "grocer/inputs", "kueue.x-k8s.io/queue-name"
"""Annotation with the digest of what the TrainJob was created from, and Kueue's label."""
NAMESPACE_VARIABLE, POD_VARIABLE = "GROCER_NAMESPACE", "GROCER_POD"


def store_of(config: RunConfig) -> str:
    """Return `train.checkpoints`, or raise a ConfigError if it is not in an object store."""
    address = config.train.checkpoints or ""
    if not address.startswith(("s3://", "gs://")):
        raise ConfigError(
            f"train.checkpoints={address or 'null'}: {config.train.processes} processes train as "
            "a TrainJob, which exchanges its files through an object store; set it to s3:// or "
            "gs://, or set train.nodes and train.processes_per_node to 1"
        )
    return address.rstrip("/")
