"""`python -m serving.predictor --bundle DIR --port N`: run the predictor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grocer.errors import GrocerError
from serving.predictor.server import serve


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m serving.predictor", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, help="directory of the bundle")
    parser.add_argument("--digest", help="the bundle's digest, where its directory is not named so")
    parser.add_argument("--base", type=Path, help="directory of the base model")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a pod")
    parser.add_argument("--grpc-port", type=int, help="also serve gRPC there (off by default)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a limit of the predictor"
    )
    return parser.parse_args(words)


def main() -> int:
    """Serve; 0 told to stop, 1 the device failed, 2 the user's mistake."""
    given = arguments()
    try:
        return serve(
            given.bundle,
            given.port,
            given.host,
            digest=given.digest,
            base=given.base,
            settings=given.set,
            grpc_port=given.grpc_port,
        )
    except GrocerError as error:
        print(f"grocer: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
