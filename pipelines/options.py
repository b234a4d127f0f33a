"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from grocer.recipes import RECIPES

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a setting, as in gate.min_accuracy=0.9"
    ),
]
Recipe = Annotated[
    str, typer.Option("--recipe", metavar="NAME", help=f"What to begin from: {', '.join(RECIPES)}")
]
