"""`grocer doctor`: what this machine and its cluster have and lack, as one table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.options import Host, Namespace, Token

if TYPE_CHECKING:
    from pipelines.doctor.report import Finding
    from pipelines.kubeflow.client import Server

Store = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="Place in an object store to look at, as s3://bucket/prefix; else AWS_ENDPOINT_URL's",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of the table")]
_STYLES = {"ok": ("✓", "green"), "failed": ("✗", "red"), "optional": ("–", "dim")}


def doctor(
    host: Host = None,
    namespace: Namespace = None,
    token_env: Token = "KF_PIPELINES_TOKEN",
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say what this machine and its cluster have and lack.

    Each lack comes with the next step. Exit code 2: something is lacking that grocer run --recipe
    tiny needs here, or that --host or --store asks for; a cluster or a GPU alone is no error.
    Nothing is changed anywhere, and no server is waited for longer than ten seconds.
    """
    from rich.console import Console

    from pipelines.doctor.report import blocking
    from pipelines.kubeflow.client import Server

    # As it is now: kfp's client is kept quiet by way of sys.stdout, maybe past its time.
    out = sys.stdout
    with Console(stderr=True).status("looking"):
        found = list(look(Server(host=host, namespace=namespace, token_env=token_env), store))
    if as_json:
        ready = not blocking(found)
        print(json.dumps({"ready": ready, "findings": [asdict(each) for each in found]}), file=out)
    else:
        _show(found, out)
    raise typer.Exit(2 if blocking(found) else 0)


def look(server: Server, store: str | None) -> Iterator[Finding]:
    """Every finding, in the table's order.

    Raises:
        ConfigError: `store` is no address of an object store.
    """
    from pipelines.doctor import cluster as doctor_cluster
    from pipelines.doctor import machine as doctor_machine
    from pipelines.doctor import store as doctor_store

    kept = doctor_store.store(store)  # first, as it may be a mistake
    yield doctor_machine.python()
    yield doctor_machine.packages()
    yield from doctor_machine.devices()
    yield doctor_machine.memory()
    yield doctor_machine.disk()
    cluster = doctor_cluster.cluster()
    yield from cluster
    yield from doctor_cluster.kubeflow(server, cluster[0].state == "ok")
    yield from kept


def _show(found: Sequence[Finding], out: object) -> None:
    """Print the table, and what it comes to."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pipelines.doctor.report import blocking

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("What", no_wrap=True)
    table.add_column("State", no_wrap=True)
    table.add_column("Found, and the next step", overflow="fold")
    for each in found:
        mark, style = _STYLES[each.state]
        text = Text(each.found)
        if each.next:
            text.append(f"\n→ {each.next}", "bold" if each.state == "failed" else "dim")
        table.add_row(Text(each.what), Text(f"{mark} {each.state}", style), text)
    console = Console(file=out, highlight=False)  # type: ignore[arg-type, unused-ignore]
    console.print(table)
    lacks = ", ".join(each.what for each in blocking(found))
    console.print()
    console.print(Text(f"Not ready: {lacks}", "bold red") if lacks else Text(_READY, "bold green"))


_READY = "Ready: grocer run --recipe tiny has what it needs here."
