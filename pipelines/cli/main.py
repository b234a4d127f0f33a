"""The `grocer` command: parses, calls one function, and turns its end into an exit code.

0: done, and deployed where there is something to deploy; 1: a bug of ours; 2: a mistake of the
user's, said in one line on stderr; 3: done, and the gate said no; 130: interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from grocer import __version__
from grocer.config.recipes import recipe
from grocer.errors import GrocerError
from pipelines.cli.bulk_commands import bulk
from pipelines.cli.canary_commands import promote, rollback
from pipelines.cli.doctor_commands import doctor
from pipelines.cli.kubeflow_commands import compile_pipeline, schedule, submit
from pipelines.cli.options import MinProbability, Recipe, Settings, limits_like

# Typer's base of whatever is wrong with a command line; it has no public name for it.
_UsageError = typer.BadParameter.__base__
assert _UsageError is not None

EXIT_CODES = (
    "0 done and deployed; 3 done, and the gate said no; 2 a mistake in what was asked or given, in "
    "one line; 1 a bug of ours"
)

app = typer.Typer(
    name="grocer",
    help="Puts every product of an online grocery into exactly one department.",
    epilog=f"Exit codes: {EXIT_CODES}.",
    # Plain help: the boxes of the rich one leave too little room for words, and don't pipe well.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"grocer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    data: Annotated[
        str,
        typer.Option(
            metavar="URI",
            help="Catalogue: directory, zip, or s3://, gs:// or https:// address; CSV or Parquet",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Directory for all that the run leaves, whole or not at all"
        ),
    ],
    from_recipe: Recipe = "tiny",
    settings: Settings = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Take the place of an earlier run in --out")
    ] = False,
    champion: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Bundle that serves now, which must be beaten to deploy"),
    ] = None,
) -> None:
    """Run the whole pipeline on this machine.

    It goes from tables to a model that was served and asked, or to the gate's no, and leaves
    the figures, a report, the reasons and the bundle in --out. The exit code says which: see
    grocer --help.
    """
    from pipelines.cli.print_summary import show
    from pipelines.local.run import RunError
    from pipelines.local.run import run as run_pipeline

    config = recipe(from_recipe).with_settings(settings or [])
    try:
        finished = run_pipeline(data, out, config, replace=replace, champion=champion)
    except RunError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(_say("interrupted; nothing of the run is left", 130)) from error
    show(finished)
    raise typer.Exit(0 if finished.summary["gate"]["passed"] else 3)


@app.command()
def serve(
    bundle: Annotated[Path, typer.Option(metavar="DIR", help="Bundle that the gate has passed")],
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT", min=0, max=65535, help="Port to listen at; 0: any that is free"
        ),
    ] = 8080,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="Address to listen at; 0.0.0.0: reachable from other machines"
        ),
    ] = "127.0.0.1",
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Base model, where the bundle holds none")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a limit of serving, as in max_items=64; may be given again",
            autocompletion=limits_like,
        ),
    ] = None,
) -> None:
    """Serve a bundle over HTTP until told to stop.

    V1 is at /v1/models/grocer:predict and V2 at /v2/models/grocer/infer. SIGTERM and Ctrl-C let
    what is in flight finish.
    """
    _quiet()
    from serving.predictor.server import serve as serve_bundle

    raise typer.Exit(serve_bundle(bundle, port, host, base=base, settings=settings or []))


@app.command()
def classify(
    source: Annotated[Path, typer.Argument(metavar="IN", help="File to read: CSV or Parquet")],
    out: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="File to write, CSV or Parquet: IN and its answers"),
    ],
    bundle: Annotated[Path, typer.Option(metavar="DIR", help="Bundle that the gate has passed")],
    column: Annotated[
        str, typer.Option(metavar="NAME", help="Column of IN with the products' names")
    ] = "product_name",
    min_probability: MinProbability = 0.0,
) -> None:
    """Name the department of each product in a file.

    Every row is kept, in its place. The same command takes up again what was cut short.
    """
    _quiet()
    from grocer.inference.batch import classify as classify_file

    counts = classify_file(source, out, bundle, column=column, min_probability=min_probability)
    told = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    typer.echo(f"{out}: {told}")


app.command(name="compile")(compile_pipeline)
app.command()(submit)
app.command()(schedule)
app.add_typer(bulk)
app.command()(promote)
app.command()(rollback)
app.command()(doctor)


def _quiet() -> None:
    """Keep the frameworks' bars and warnings from the console; read before they are imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")


def main() -> None:
    """The console script."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        return app(list(arguments), prog_name="grocer", standalone_mode=False) or 0
    except GrocerError as error:
        return _say(str(error), 2)
    except _UsageError as error:
        return _say(_usage(error), 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _usage(error: Any) -> str:
    """What is wrong with a command line, and where its help is."""
    command = error.ctx.command_path if error.ctx else "grocer"
    return f"{error.format_message().rstrip('.') or 'no command'}; see {command} --help"


def _say(text: str, code: int) -> int:
    print(f"grocer: {' '.join(text.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
