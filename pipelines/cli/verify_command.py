"""`grocer verify`: check a bundle and show what it is, who signed it and why it was deployed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.text import Text
from typer import Argument

from grocer.release.signature import SIGNATURE
from pipelines.cli.options import Key, require_key
from pipelines.cli.print_summary import show_block, show_verdict

if TYPE_CHECKING:
    from grocer.release.bundle import LoadedBundle


def verify(
    bundle: Annotated[
        str,
        Argument(
            metavar="BUNDLE", help="Directory of a bundle, or its s3://, gs:// or oci:// address"
        ),
    ],
    key: Key = None,
) -> None:
    """Verify a bundle and show its signer, decision and data.

    Exit code 2: the bundle was modified, its gate failed, it does not meet the platform's gate
    policy, or it is not signed by a trusted key.
    """
    from grocer.release.registry import open_bundle
    from grocer.release.trust import Trust

    require_key(key)
    with tempfile.TemporaryDirectory() as folder:
        checked = open_bundle(bundle, Path(folder), setting="BUNDLE")
        console = Console(highlight=False)
        for heading, text in _rows(checked, bundle):
            show_block(console, heading, text)
    decision = checked.manifest.decision
    floor = "; the platform's gate policy accepts it" if Trust.of_platform().floor else ""
    show_verdict(decision.passed, decision.reasons, f"this is what was evaluated{floor}")


def _rows(bundle: LoadedBundle, source: str) -> Iterator[tuple[str, str | Text]]:
    manifest = bundle.manifest
    yield "Bundle", source
    yield "Digest", bundle.digest
    yield "Signature", _signature(bundle)
    strategy, base = manifest.combination.strategy, manifest.base
    yield "Model", f"{strategy}, {len(manifest.labels)} {manifest.evaluation.label}s"
    if base is not None:
        yield "Base", f"{base['source']}, digest {base['digest']}"
    build = manifest.build
    yield "Data", f"tables {build.data or 'unknown'}"
    yield "", f"splits {manifest.evaluation.digests.splits}"
    where = "Kubeflow" if build.platform == "kubeflow" else "one machine"
    yield "Run", f"{build.run or 'unknown'} on {where}, {build.started} to {build.finished}"
    commit = f", commit {build.commit}" if build.commit else ""
    yield "Grocer", f"{build.version}{commit}"
    size = sum(manifest.sizes.values()) / 1e6
    yield "Files", f"{len(manifest.files) + 1}, {size:,.1f} MB"


def _signature(bundle: LoadedBundle) -> Text:
    if bundle.signer:
        return Text(f"valid: {bundle.signer}", "green")
    exists = (bundle.path / SIGNATURE).is_file()
    return Text("not verified: no trusted key; set --key" if exists else "none", "bold yellow")
