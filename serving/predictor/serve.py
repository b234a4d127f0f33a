"""Check a bundle and serve it."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from grocer.config.deployment import ServingConfig
from grocer.errors import GrocerError
from grocer.inference.classifier import Classifier, load_for_serving
from grocer.release import trust
from grocer.release.bundle import LoadedBundle, load_bundle
from serving.predictor import logs

log = logging.getLogger("grocer.server")


def serve(
    bundle: Path,
    port: int = 8080,
    host: str = "127.0.0.1",
    *,
    digest: str | None = None,
    base: Path | None = None,
    settings: Sequence[str] = (),
    grpc_port: int | None = None,
) -> int:
    """Serve a bundle until SIGTERM or SIGINT.

    Args:
        bundle: directory of the bundle.
        digest: expected digest; by default the directory's name.
        base: directory of the base model; by default the bundle's own, or its source.
        settings: `key=value` overrides of `ServingConfig`.
        grpc_port: port of the gRPC server; None disables it.

    Returns:
        0 after a signal, 1 after a device failure.

    Raises:
        BundleError: the bundle is invalid, did not pass the gate, or is not signed by a trusted
            key.
        ModelError: the base, the adapter or the linear model cannot be loaded.
        ConfigError: a setting is unknown or invalid, or the port is in use.
    """
    logs.configure()
    checked = load_bundle(bundle, digest)
    if checked.signer:
        log.info("bundle %s is signed by %s", checked.digest[:12], checked.signer)
    else:
        log.warning("signature not verified: no trusted key (%s)", trust.VARIABLE)
    config = checked.manifest.config.with_settings([f"serving.{text}" for text in settings]).serving
    # Python's default of 5 ms delays each step of a request while the model thread computes.
    sys.setswitchinterval(0.001)
    # bitsandbytes calls torch.compile when it is imported, which loads TorchInductor for seconds,
    # although the predictor uses none of the compiled functions.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    # Importing KServe takes seconds: an invalid bundle is rejected first.
    from serving.predictor import tracing
    from serving.predictor.server import Server

    tracing.configure()
    server = Server(checked, config, partial(load_classifier, config, base), host, port, grpc_port)
    server.start([])
    if isinstance(server.failure, GrocerError):
        raise server.failure
    return 0 if server.failure is None else 1


def load_classifier(config: ServingConfig, base: Path | None, bundle: LoadedBundle) -> Classifier:
    """Return the classifier of a bundle."""
    classifier = load_for_serving(bundle, token_budget=config.token_budget, base=base)
    # Exclude the loaded model from garbage collection, which would pause requests by 0.3 s.
    gc.freeze()
    log.info("model loaded", extra={"digest": bundle.digest})
    return classifier
