"""`grocer doctor`: check this machine and its cluster; print a table or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from typer import Option

from pipelines.cli.options import ServerOptions, expand_groups
from pipelines.doctor.report import Finding, blocking

_STYLES = {"ok": ("✓", "green"), "failed": ("✗", "red"), "optional": ("–", "dim")}
_READY = "Ready: this machine meets the requirements of grocer run."


@expand_groups
def doctor(
    *,
    server: ServerOptions,
    store: Annotated[
        str | None,
        Option(
            metavar="URI",
            help="Store to check, as s3://bucket/prefix or oci://registry/repository; "
            "default: that at AWS_ENDPOINT_URL",
        ),
    ] = None,
    queue: Annotated[
        str | None, Option(metavar="NAME", help="LocalQueue of Kueue to check, as cluster.queue")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print JSON instead of the table")] = False,
) -> None:
    """Check this machine and its cluster, and suggest fixes.

    Exit code 2: a requirement of grocer run is not met, or a check fails of what --host,
    --store, --queue, KUBECONFIG, KF_PIPELINES_ENDPOINT or AWS_ENDPOINT_URL names. A missing
    cluster or GPU alone is not an error. The checks change nothing and time out after ten
    seconds.
    """
    from rich.console import Console

    from pipelines.doctor import cluster as doctor_cluster
    from pipelines.doctor import machine as doctor_machine
    from pipelines.doctor import store as doctor_store

    # kfp's client is silenced by replacing sys.stdout, in a probe that may outlast its timeout.
    out = sys.stdout
    with Console(stderr=True).status("checking"):
        storage = doctor_store.store(store)  # first, because the address may be invalid
        cluster = doctor_cluster.cluster(server.namespace or "kubeflow", queue)
        findings = [
            doctor_machine.python(),
            doctor_machine.packages(),
            *doctor_machine.devices(),
            doctor_machine.memory(),
            doctor_machine.disk(),
            *cluster,
            *doctor_cluster.kubeflow(server, cluster[0].state == "ok"),
            *storage,
        ]
    problems = blocking(findings)
    if as_json:
        report = {"ready": not problems, "findings": [asdict(each) for each in findings]}
        print(json.dumps(report), file=out)
    else:
        _show(findings, out)
    raise typer.Exit(2 if problems else 0)


def _show(findings: Sequence[Finding], out: object) -> None:
    """Print the table and whether a run is possible."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Check", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Result and next step", overflow="fold")
    for each in findings:
        mark, style = _STYLES[each.state]
        text = Text(each.found)
        if each.next:
            text.append(f"\n→ {each.next}", "bold" if each.state == "failed" else "dim")
        table.add_row(Text(each.what), Text(f"{mark} {each.state}", style), text)
    console = Console(file=out, highlight=False)  # type: ignore[arg-type, unused-ignore]
    console.print(table)
    problems = ", ".join(each.what for each in blocking(findings))
    console.print()
    console.print(
        Text(f"Not ready: {problems}", "bold red") if problems else Text(_READY, "bold green")
    )
