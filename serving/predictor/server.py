"""Serve a bundle: refuse what must not be served, then start the server."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from grocer.config.deployment import ServingConfig
from grocer.errors import GrocerError
from grocer.release.bundle import Bundle, load_bundle
from serving.predictor import logs


def serve(
    bundle: Path,
    port: int = 8080,
    host: str = "127.0.0.1",
    *,
    digest: str | None = None,
    base: Path | None = None,
    settings: Sequence[str] = (),
    grpc_port: int | None = None,
    load: Callable[[Bundle], Any] | None = None,
) -> int:
    """Serve a bundle until SIGTERM or SIGINT.

    Args:
        bundle: its directory.
        digest: what its digest must be, where the directory's name does not say it.
        base: directory of the base, where the bundle and its source do not say it.
        settings: `key=value` of `ServingConfig`, over what the bundle's run had.
        grpc_port: also serve gRPC there.
        load: makes the scorer; by default the bundle's own.

    Returns:
        0 when it was told to stop, 1 when the device failed.

    Raises:
        BundleError: the bundle must not be served.
        ModelError: its base or its adapter can't be loaded.
        ConfigError: a setting that does not exist or fit.
    """
    logs.configure()
    checked = load_bundle(bundle, digest)
    config = checked.config.with_settings([f"serving.{text}" for text in settings]).serving
    # The model's thread may keep the interpreter to itself this long, in seconds. Python's 5 ms
    # are added to each step of a request while a forward pass runs.
    sys.setswitchinterval(0.001)
    # Only now: a bundle that is refused should not wait for seconds of imports.
    from serving.predictor import tracing
    from serving.predictor.lifecycle import Server

    tracing.configure()
    server = Server(checked, config, load or scorer_loader(config, base), host, port, grpc_port)
    server.start([])
    if isinstance(server.failure, GrocerError):
        raise server.failure
    return 0 if server.failure is None else 1


def scorer_loader(config: ServingConfig, base: Path | None = None) -> Callable[[Bundle], Any]:
    """Load a bundle's own model, by the device and type that its run was configured with."""

    def load(bundle: Bundle) -> Any:
        import torch

        from grocer.inference.scorer import Scorer
        from grocer.model.device import cpu_threads

        torch.set_num_threads(cpu_threads(spare=1))
        scorer = Scorer.load(
            bundle.path,
            token_budget=config.token_budget,
            device="auto",
            compute_dtype=bundle.config.base.compute_dtype,
            base=base,
        )
        # All of this lives as long as the server. Walked by the collector now and then, it would
        # hold up every request by some 0.3 s.
        gc.freeze()
        return scorer

    return load
