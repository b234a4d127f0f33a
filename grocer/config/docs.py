"""The reference of all settings, written from `RunConfig` itself, so that it can't lag behind.

`python -m grocer.reference FILE` writes it; `make docs` calls that for docs/configuration.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grocer.config.recipes import RECIPES
from grocer.config.run import RunConfig
from grocer.io.atomic import whole_file

Schema = Mapping[str, Any]
_REFERENCE = "#/$defs/"
_KINDS = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
}
_BOUNDS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}
_HEAD = """# Configuration

Every setting of a run, generated from `RunConfig` by `make docs`; a test fails where this page and
the code differ.

A run begins with a recipe (`--recipe`) and changes single settings of it, each by one
`--set section.key=value`:

```
.venv/bin/grocer run --data examples/catalogue --out build/run --recipe tiny \\
    --set gate.min_accuracy=0.9 --set 'gate.baselines=["linear"]' --set train.checkpoints=null
```

A value is read as JSON (numbers, `true`, `null`, lists in brackets), and as plain text where it is
none. Unknown keys, wrong types and values out of bounds end the command with exit code 2 before
anything runs. The resolved configuration is the run's `config.json`, and goes into the bundle.
`grocer serve` takes the keys of [serving](#serving) alone: `--set max_items=64`.

Where a recipe differs from the default, the default column says so. Secrets are never settings: a
setting names the environment variable or the Kubernetes Secret that holds one.
"""


def page() -> str:
    """The whole page, in Markdown: a table for each section of the configuration."""
    schema = RunConfig.model_json_schema()
    sections = schema["$defs"]
    recipes = {name: _flat(make().model_dump(mode="json")) for name, make in RECIPES.items()}
    parts = [_HEAD]
    for name, field in schema["properties"].items():
        if "$ref" not in field:  # `recipe` itself
            continue
        section = sections[field["$ref"].removeprefix(_REFERENCE)]
        told = [f"## {name}", "", _line(section["description"]), ""]
        told += ["| Setting | Values | Default | What it is |", "|---|---|---|---|"]
        told += [_row(*setting, recipes) for setting in _settings(name, section, sections)]
        parts.append("\n".join([*told, ""]))
    return "\n".join(parts)


def _settings(
    path: str, section: Schema, sections: Mapping[str, Schema]
) -> Iterator[tuple[str, Schema]]:
    """Each setting by its dotted key, with its schema; an optional section's follow it."""
    for name, field in section["properties"].items():
        yield f"{path}.{name}", field
        for choice in field.get("anyOf", ()):
            if "$ref" in choice:
                inner = sections[choice["$ref"].removeprefix(_REFERENCE)]
                yield from _settings(f"{path}.{name}", inner, sections)


def _row(key: str, field: Schema, recipes: Mapping[str, Mapping[str, Any]]) -> str:
    default = field["default"]
    cells = [f"`{key}`", _values(field), _shown(default), _line(field["description"])]
    for name, settings in recipes.items():
        if settings.get(key, default) != default:
            cells[2] += f"; {name}: {_shown(settings[key])}"
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _values(field: Schema) -> str:
    """What may be given, in words: type, bounds, choices."""
    if "anyOf" in field:
        return ", or ".join(_values(choice) for choice in field["anyOf"])
    if "$ref" in field:
        return "the settings below"
    if "enum" in field or "const" in field:
        return ", ".join(_shown(value) for value in field.get("enum", [field.get("const")]))
    kind = field["type"]
    if kind == "array":
        return f"list of {_values(field['items'])}"
    if kind == "object":
        return f"map of text to {_values(field['additionalProperties'])}"
    if "pattern" in field:
        return f"text that matches `{field['pattern']}`"
    bounds = [f"{word} {field[bound]:g}" for bound, word in _BOUNDS.items() if bound in field]
    return " ".join([_KINDS[kind], " and ".join(bounds)]).rstrip()


def _shown(value: Any) -> str:
    """A value as it is given to `--set`."""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Every setting of a configuration by its dotted key; maps and lists are values."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if not path and isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        else:
            found[f"{path}{name}"] = value
    return found


def _line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    with whole_file(Path(sys.argv[1])) as part:
        part.write_text(page())
