"""`grocer lineage`: show where a served model comes from, and register runs in a registry."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from typer import Argument, Option

from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.errors import BundleError, ConfigError, RegistryError
from pipelines.cli.options import Settings
from pipelines.cli.print_summary import show_block

if TYPE_CHECKING:
    from grocer.release.lineage import Lineage

_DIGEST = re.compile("[0-9a-f]{64}")
_SHORT_DIGEST = re.compile("[0-9a-f]{7,63}…?")
_RUN = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def lineage(
    target: Annotated[
        str | None,
        Argument(
            metavar="[TARGET]",
            help="Digest or address of a bundle, id of a run, or [NAMESPACE/]NAME of an "
            "InferenceService",
        ),
    ] = None,
    answer_header: Annotated[
        str | None, Option(metavar="DIGEST", help="Header x-model-digest of an HTTP response")
    ] = None,
    register: Annotated[
        str | None,
        Option(
            metavar="RUN",
            help="Register a run in registry.address: output directory of grocer run, address of "
            "the artifact `lineage` of a run on Kubeflow, or address of a bundle",
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of a table")] = False,
    settings: Settings = None,
) -> None:
    """Show which run, data and base model a bundle comes from.

    Reads the model registry, registry.address, if it is set; otherwise, or if the model is not
    registered there, the bundle in deploy.store. A run whose gate failed is only in the registry.
    The JSON is a list: an InferenceService with a canary serves two bundles.
    """
    config = recipe("tiny").with_settings(settings or [])  # recipes differ in other sections
    if sum(each is not None for each in (target, answer_header, register)) != 1:
        raise ConfigError("lineage: give one of TARGET, --answer-header and --register")
    if register is not None:
        from grocer.release.model_registry import ModelRegistry

        if config.registry.address is None:
            raise ConfigError("--register requires the registry: --set registry.address=URL")
        found = [_read(register)]
        version = ModelRegistry(config.registry.address).register(found[0])
        typer.echo(f"version {version.version_id} in {config.registry.address}", err=True)
    elif target is None or _DIGEST.fullmatch(target) or _RUN.fullmatch(target):
        found = [_find(answer_header or target or "", config)]
    elif "://" in target or Path(target).exists():
        found = [_read(target)]
    elif _SHORT_DIGEST.fullmatch(target):
        raise ConfigError(f"{target}: a digest has 64 digits; give all of them")
    else:
        found = list(_served(target, config))
    if as_json:
        typer.echo(json.dumps([each.model_dump() for each in found], indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    for each in found:
        for heading, text in _rows(each):
            show_block(console, heading, text)


def _read(address: str) -> Lineage:
    from grocer.release.lineage import read_lineage

    with tempfile.TemporaryDirectory() as folder:
        return read_lineage(address, Path(folder))


def _find(key: str, config: RunConfig, uri: str | None = None) -> Lineage:
    """Return the lineage of a digest or run, from the registry or else from the bundle.

    Args:
        uri: address of the bundle, if it is known.
    """
    from grocer.release.model_registry import ModelRegistry
    from grocer.release.registry import is_image

    key = key.lower().removeprefix("x-model-digest:").strip()
    if not (_DIGEST.fullmatch(key) or _RUN.fullmatch(key)):
        raise ConfigError(f"--answer-header {key}: expected a digest, 64 hexadecimal digits")
    store, address = config.deploy.store, config.registry.address
    if uri is None and store is not None and _DIGEST.fullmatch(key):
        uri = f"{store}:{key}" if is_image(store) else f"{store.rstrip('/')}/{key}"
    if address is not None:
        try:
            if found := ModelRegistry(address).find(key, config.deploy.name):
                return found
        except RegistryError as error:
            if uri is None:
                raise
            typer.echo(f"grocer: warning: {error}; reading {uri}", err=True)
    if uri is None:
        where = f"{address} has no such version" if address else "registry.address is not set"
        raise BundleError(f"{key}: {where}; set registry.address or deploy.store with --set")
    return _read(uri)


def _served(service: str, config: RunConfig) -> Iterator[Lineage]:
    """Yield the lineage of the stable bundle of an InferenceService, and of its canary."""
    from serving.rollout.inference_service import read_state
    from serving.rollout.kubernetes import Cluster, NoKubeconfigError

    namespace, _, name = service.rpartition("/")
    namespace = namespace or config.deploy.namespace
    try:
        cluster = Cluster(namespace)
    except NoKubeconfigError as error:
        text = f"{service}: no such directory, digest or run; as an InferenceService: {error}"
        raise ConfigError(text) from error
    state = read_state(cluster.inference_service(name))
    if not state.revisions:
        raise BundleError(f"{namespace}/{name} serves no bundle yet")
    config = config.with_settings([f"deploy.name={name}"])
    for revision in state.revisions:
        yield _find(revision.digest, config, revision.uri)


def _rows(lineage: Lineage) -> Iterator[tuple[str, str]]:
    digests = lineage.digests
    yield "Model", lineage.name
    yield "Bundle", lineage.bundle or "none: the gate failed"
    yield "Address" if lineage.bundle else "Report", lineage.uri
    interval = f"{lineage.accuracy_low:.2%} to {lineage.accuracy_high:.2%}"
    yield "Gate", f"{lineage.verdict}: test accuracy {lineage.accuracy:.2%} ({interval})"
    if lineage.failed_rules:
        yield "", lineage.failed_rules
    for number, (name, accuracy) in enumerate(sorted(lineage.baselines.items())):
        yield "" if number else "Baselines", f"{name} {accuracy:.2%}"
    where = "Kubeflow" if lineage.platform == "kubeflow" else "one machine"
    yield "Run", f"{lineage.run} on {where}, {lineage.started} to {lineage.finished}"
    yield "Recipe", f"{lineage.recipe}, configuration {digests['configuration']}"
    yield "Data", f"tables {digests.get('data', 'unknown')}"
    for name in ("splits", "evaluation", "decision"):
        yield "", f"{name} {digests.get(name, 'unknown')}"
    yield "Base", f"{lineage.base}, digest {digests['base']}" if lineage.base else "not used"
    yield "Grocer", f"{lineage.version}{f', commit {lineage.commit}' if lineage.commit else ''}"
