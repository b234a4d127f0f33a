"""Settings of earlier versions, and what replaces each of them.

`--set` and saved configurations that still contain one of these keys are refused with the
replacement, so that a setting is never ignored silently.
"""

from __future__ import annotations

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "data.threads": "derived from data.memory_limit_mb, one thread per 200 MiB",
    "validation.min_departments": "fixed at 2",
    "validation.max_split_aisles": "fixed at 0; if your aisles span departments, ingest without "
    "an aisle column",
    "prompt.max_name_characters": "fixed at 200; use prompt.max_name_tokens",
    "base.token_env": "set the environment variable HF_TOKEN",
    "tiny.vocabulary": "derived as 16 x tiny.hidden",
    "tiny.layers": "fixed at 2; use tiny.hidden",
    "tiny.heads": "derived as tiny.hidden / 32",
    "tiny.learning_rate": "fixed at 0.003; use tiny.steps",
    "tiny.seed": "fixed at 7",
    "train.eval_strategy": "validation loss is measured after each epoch",
    "train.tensorboard": "event files are written to tensorboard/ in the output of train",
    "train.threads": "set the environment variable OMP_NUM_THREADS",
    "evaluation.train_sample": "use evaluation.sample_size",
    "evaluation.base_model_sample": "use evaluation.sample_size",
    "evaluation.token_budget": "fixed at 1024",
    "evaluation.bootstrap": "fixed at 1000 resamples",
    "evaluation.seed": "fixed at 23",
    "gate.significance": "derived as 1 - evaluation.confidence",
    "serving.threads": "set the environment variable OMP_NUM_THREADS",
    "serving.max_requests": "derived as 2 x serving.max_items",
    "serving.batch_wait_ms": "fixed at 2 ms; use serving.token_budget",
    "serving.queue_items": "derived as 4 x serving.max_items",
    "serving.grace_seconds": "derived from serving.deadline_seconds",
    "serving.drift_window": "fixed at 10000 predictions",
    "serving.explain_items": "fixed at 16",
    "serving.explain_words": "fixed at 40",
    "serving.smoke_names": "the smoke test sends the most purchased test products",
    "deploy.runtime": "derived: the ServingRuntime has the name deploy.name",
    "cluster.toleration_key": "derived from cluster.accelerator",
    "cluster.data_timeout_seconds": "derived as cluster.model_timeout_seconds / 12",
    "cluster.run_timeout_seconds": "derived as 3 x cluster.model_timeout_seconds",
    "cluster.fail_on_no": "use cluster.fail_if_gate_fails",
    "cluster.hub_token_secret": "fixed: the Secret is named grocer-hub-token",
    "cluster.store_config": "derived: the ConfigMap has the name cluster.store_secret",
    "cluster.checkpoints_claim": "use train.checkpoints=pvc://CLAIM",
    "cluster.base_claim": "use base.source=pvc://CLAIM",
}
