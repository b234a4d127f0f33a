"""Generate docs/configuration.md from `RunConfig`: `python -m grocer.config.docs FILE`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from grocer.config.recipes import RECIPES
from grocer.config.removed import REMOVED
from grocer.config.run import RunConfig
from grocer.io.atomic import whole_file

Schema = Mapping[str, Any]
_TYPES = {
    "integer": "integer",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "null": "`null`",
}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_INTRODUCTION = """# Configuration reference

All settings of a run, generated from `RunConfig` by `make docs`; a test compares this page with the
code.

A run starts from a recipe (`--recipe`); `--set section.key=value` changes one setting and is
repeatable:

```
.venv/bin/grocer run --data examples/catalogue --out build/run --recipe tiny \\
    --set gate.min_accuracy=0.9 --set 'gate.baselines=["linear"]' --set train.checkpoints=null
```

Values are parsed as JSON (numbers, `true`, `null`, lists), otherwise as plain text. Unknown keys,
wrong types and values out of range end the command with exit code 2 before anything runs. The
resolved configuration is saved as `config.json` of the run and in the bundle. `grocer serve` takes
the keys of [serving](#serving) without the section: `--set max_items=64`.

The column *Default* names recipes that differ. Secrets are never settings: a setting names the
environment variable or the Kubernetes Secret. `OMP_NUM_THREADS` sets the number of CPU threads.
"""


def page() -> str:
    """Return the page in Markdown: one table per section, and the removed settings."""
    schema = RunConfig.model_json_schema()
    definitions = schema["$defs"]
    recipes = {name: make().model_dump(mode="json") for name, make in RECIPES.items()}
    lines = [_INTRODUCTION]
    for section, field in schema["properties"].items():
        if "$ref" not in field:  # the recipe's name
            continue
        definition = _resolve(field, definitions)
        lines += [f"## {section}", "", _one_line(definition["description"]), ""]
        lines += ["| Setting | Values | Default | Description |", "|---|---|---|---|"]
        for key, setting in _settings(definition, definitions):
            default = setting["default"]
            values = {name: tree[section].get(key, default) for name, tree in recipes.items()}
            differing = [f"{n}: {_code(v)}" for n, v in values.items() if v != default]
            cells = [
                f"`{section}.{key}`",
                _values(setting),
                "; ".join([_code(default), *differing]),
            ]
            lines.append(_row(*cells, _one_line(setting["description"])))
        lines.append("")
    lines += ["## Removed settings", "", "These keys of earlier versions are refused.", ""]
    lines += ["| Setting | Replacement |", "|---|---|"]
    lines += [_row(f"`{key}`", replacement) for key, replacement in REMOVED.items()]
    return "\n".join([*lines, ""])


def _settings(definition: Schema, definitions: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield key and schema of each setting; those of an optional subsection have dotted keys."""
    for key, field in definition["properties"].items():
        yield key, field
        for choice in field.get("anyOf", ()):
            if "$ref" in choice:
                for inner, schema in _settings(_resolve(choice, definitions), definitions):
                    yield f"{key}.{inner}", schema


def _resolve(field: Schema, definitions: Schema) -> Schema:
    definition: Schema = definitions[field["$ref"].rpartition("/")[2]]
    return definition


def _values(field: Schema) -> str:
    """Describe the valid values: type and bounds, or choices."""
    if "anyOf" in field:
        return ", or ".join(_values(choice) for choice in field["anyOf"])
    if "$ref" in field:
        return "the settings below"
    if "enum" in field or "const" in field:
        return ", ".join(_code(value) for value in field.get("enum", [field.get("const")]))
    if field["type"] == "array":
        return f"list of {_values(field['items'])}"
    if field["type"] == "object":
        return f"map of text to {_values(field['additionalProperties'])}"
    if "pattern" in field:
        return f"text matching `{field['pattern']}`"
    bounds = [f"{sign} {field[bound]:g}" for bound, sign in _BOUNDS.items() if bound in field]
    return " ".join([_TYPES[field["type"]], " and ".join(bounds)]).rstrip()


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(value: Any) -> str:
    """Return a value in the form that `--set` takes."""
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    with whole_file(Path(sys.argv[1])) as part:
        part.write_text(page())
