"""The `grocer` command: parses arguments, calls one function, and returns an exit code.

0: success; 1: internal error; 2: user error, reported in one line on stderr; 3: the gate failed,
or a canary was rolled back; 130: interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from grocer import __version__, events
from grocer.config.recipes import recipe
from grocer.errors import GrocerError, redacted
from pipelines.cli.bulk_commands import bulk
from pipelines.cli.canary_commands import promote, rollback, status
from pipelines.cli.doctor_commands import doctor
from pipelines.cli.drift_command import drift
from pipelines.cli.kubeflow_commands import compile_pipeline, schedule, submit
from pipelines.cli.lineage_command import lineage
from pipelines.cli.options import (
    Column,
    Corrections,
    Key,
    MinProbability,
    Recipe,
    Settings,
    TriggerOptions,
    complete_serving,
    corrected_settings,
    expand_groups,
    require_key,
    silence_frameworks,
)
from pipelines.cli.review_commands import review
from pipelines.cli.verify_command import verify
from pipelines.local.run import RunError

# Typer's base class of command-line errors, which has no public name.
_UsageError = typer.BadParameter.__base__
assert _UsageError is not None

EXIT_CODES = "0 success; 1 internal error; 2 user error; 3 the gate failed"

app = typer.Typer(
    name="grocer",
    help="Assign every product of an online grocery to exactly one department.",
    epilog=f"Exit codes: {EXIT_CODES}.",
    # Plain help: rich's boxes leave too little room for text and do not pipe well.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"grocer {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        Option("--version", callback=_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command()
@expand_groups
def run(
    data: Annotated[
        str,
        Option(
            metavar="URI",
            help="Catalogue: directory, zip file, or s3://, gs:// or https:// address; CSV or "
            "Parquet",
        ),
    ],
    out: Annotated[
        Path, Option(metavar="DIR", help="Output directory, written only if the run completes")
    ],
    from_recipe: Recipe = "smollm2",
    settings: Settings = None,
    replace: Annotated[bool, Option("--replace", help="Overwrite an earlier run in --out")] = False,
    champion: Annotated[
        Path | None, Option(metavar="DIR", help="Deployed bundle that the new model must beat")
    ] = None,
    corrections: Corrections = None,
    key: Key = None,
    *,
    trigger: TriggerOptions,
) -> None:
    """Run the whole pipeline on this machine.

    Ingests and validates the catalogue, trains and evaluates a model and, if the gate passes,
    writes a bundle and tests it in a local predictor. The summary, reports and bundle are written
    to --out. Exit code 3: the gate failed. With --when, nothing is trained and written unless
    a retraining is due.
    """
    from grocer.release.lineage import Lineage
    from grocer.release.model_registry import register_verdict
    from pipelines.cli.print_summary import show
    from pipelines.local.run import run as run_pipeline

    require_key(key)
    config = recipe(from_recipe).with_settings(corrected_settings(settings, corrections))
    try:
        finished = run_pipeline(
            data, out, config, replace=replace, champion=champion, trigger=trigger.trigger(config)
        )
    except KeyboardInterrupt as error:
        raise typer.Exit(_error("interrupted; no output was written", 130)) from error
    if finished is None:
        raise typer.Exit(0)
    show(finished)
    if not (finished.summary.gate.passed and config.deploy.store):  # deploy has registered it
        register_verdict(Lineage.read(finished.out), config.registry.address, str(finished.out))
    raise typer.Exit(0 if finished.summary.gate.passed else 3)


@app.command()
def serve(
    bundle: Annotated[Path, Option(metavar="DIR", help="Bundle that passed the gate")],
    port: Annotated[
        int,
        Option(metavar="PORT", min=0, max=65535, help="Port to listen on; 0 selects a free port"),
    ] = 8080,
    host: Annotated[
        str,
        Option(metavar="ADDRESS", help="Address to listen on; 0.0.0.0 accepts remote connections"),
    ] = "127.0.0.1",
    base: Annotated[
        Path | None, Option(metavar="DIR", help="Base model, if the bundle does not include it")
    ] = None,
    settings: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="KEY=VALUE",
            help="Set a serving key, for example max_items=64; repeatable",
            autocompletion=complete_serving,
        ),
    ] = None,
    key: Key = None,
) -> None:
    """Serve a bundle over HTTP.

    Endpoints: /v1/models/grocer:predict (V1) and /v2/models/grocer/infer (V2). On SIGTERM or
    Ctrl-C the server completes in-flight requests, then exits.
    """
    silence_frameworks()
    require_key(key)
    from serving.predictor.serve import serve as serve_bundle

    raise typer.Exit(serve_bundle(bundle, port, host, base=base, settings=settings or []))


@app.command()
def classify(
    source: Annotated[Path, Argument(metavar="IN", help="Input file; CSV or Parquet")],
    out: Annotated[
        Path,
        Argument(metavar="OUT", help="Output file: the input with predictions; CSV or Parquet"),
    ],
    bundle: Annotated[Path, Option(metavar="DIR", help="Bundle that passed the gate")],
    column: Column = "product_name",
    min_probability: MinProbability = 0.0,
    key: Key = None,
) -> None:
    """Classify the products in a file.

    Every row is kept, in the same order. Repeat an interrupted command to resume it.
    """
    silence_frameworks()
    require_key(key)
    from grocer.inference.batch import classify as classify_file

    counts = classify_file(source, out, bundle, column=column, min_probability=min_probability)
    summary = ", ".join(f"{count:,} {kind.replace('_', '-')}" for kind, count in counts.items())
    typer.echo(f"{out}: {summary}")


app.command()(drift)
app.command()(verify)
app.command()(lineage)
app.command(name="compile")(compile_pipeline)
app.command()(submit)
app.command()(schedule)
app.add_typer(bulk)
app.add_typer(review)
app.command()(promote)
app.command()(rollback)
app.command()(status)
app.command()(doctor)


def main() -> None:
    """Run the console script."""
    sys.exit(execute(sys.argv[1:]))


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    os.environ.setdefault(events.VARIABLE, os.devnull)  # events are for pods and the local runner
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    try:
        return app(list(arguments), prog_name="grocer", standalone_mode=False) or 0
    except GrocerError as error:
        return _error(str(error), 2)
    except _UsageError as error:
        return _error(_usage(error, arguments), 2)
    except RunError as error:
        typer.echo(str(error), err=True)
        return 1
    except ModuleNotFoundError as error:
        if not error.name or find_spec(error.name.partition(".")[0]):
            raise
        extras = "data,train,serve,pipeline"
        step = f"run make setup in a checkout, or pip install 'PATH.whl[{extras}]'"
        return _error(f"the module {error.name} is not installed; {step}", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _usage(error: Any, arguments: Sequence[str]) -> str:
    """Return what is wrong with a command line, and how to get help."""
    # Not from the error's context, which an option without its value does not have.
    path, command = ["grocer"], typer.main.get_command(app)
    for argument in arguments:
        if (command := getattr(command, "commands", {}).get(argument)) is None:
            break
        path.append(argument)
    message = error.format_message().replace(" Value error, ", " ").rstrip(".") or "no command"
    return f"{message}; see {' '.join(path)} --help"


def _error(text: str, code: int) -> int:
    # A name from a file could otherwise control the terminal.
    line = "".join(c if c.isprintable() else "?" for c in " ".join(redacted(text).split()))
    print(f"grocer: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
