"""Serve a bundle over HTTP: `python -m serving.predictor --bundle DIR --port N`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from grocer import events
from grocer.errors import GrocerError
from serving.predictor.serve import serve


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser("python -m serving.predictor", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the bundle")
    parser.add_argument("--digest", help="expected digest (default: name of the directory)")
    parser.add_argument("--base", type=Path, help="directory or GGUF file of the base model")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--grpc-port", type=int, help="port of the gRPC server (default: disabled)")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override a serving setting (repeatable)",
    )
    return parser.parse_args(argv)


def main() -> int:
    """Serve; return 0 after a signal, 1 after a device failure, 2 after a user error."""
    os.environ.setdefault(events.VARIABLE, os.devnull)  # events are for the pipeline's steps
    try:
        return serve(**vars(arguments()))
    except GrocerError as error:
        print(f"grocer: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
