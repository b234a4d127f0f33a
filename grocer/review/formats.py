"""Files with the review queue: CSV for a spreadsheet, Label Studio tasks, and a page for a browser.

`grocer.review.corrections_file` reads the reviewed file, Label Studio's export, and the file that
the page saves.
"""

import csv
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from markupsafe import Markup

from grocer.io.atomic import json_digest, output_file, write_json
from grocer.io.tables import formula_guarded
from grocer.reports.html import render
from grocer.review.queue import Look

CSV_COLUMNS = (
    "name",
    "label",
    "who",
    "previous_label",
    "source",
    "suggestion",
    "probability",
    "alternatives",
    "purchases",
    "value",
)


def write_csv(queue: Sequence[Look], labels: Sequence[str], out: Path) -> None:
    """Write a CSV file whose columns `label` and `who` the reviewer fills in.

    Excel reads it as UTF-8 because it starts with a byte order mark.
    """
    with output_file(out) as part, part.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(CSV_COLUMNS)
        for look in queue:
            others = "; ".join(f"{label} {p:.0%}" for label, p in look.alternatives[1:])
            cells = [look.name, "", "", look.previous_label, look.source, look.suggestion]
            cells += [f"{look.alternatives[0][1]:.4f}", others]
            cells += [str(look.purchases), f"{look.value:.2f}"]
            writer.writerow(map(formula_guarded, cells))


def write_label_studio(queue: Sequence[Look], labels: Sequence[str], out: Path) -> None:
    """Write tasks with predictions, and next to them the labelling interface as `OUT.xml`."""
    write_json(out, [_task(look) for look in queue])
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    with output_file(out.with_suffix(".xml")) as part:
        part.write_text(
            '<View><Header value="$name"/><Text name="name" value="$details"/>'
            '<Choices name="label" toName="name" choice="single" showInline="true">'
            f"{choices}</Choices></View>\n",
            encoding="utf-8",
        )


def write_page(queue: Sequence[Look], labels: Sequence[str], out: Path) -> None:
    """Write a page that needs no server and no network, and saves a CSV file."""
    rows = [
        {
            "name": look.name,
            "previous": look.previous_label,
            "source": look.source,
            "purchases": look.purchases,
            "alternatives": [[label, round(p, 4)] for label, p in look.alternatives],
        }
        for look in queue
    ]
    content = json.dumps({"id": json_digest(rows)[:16], "labels": labels, "rows": rows})
    script = files("grocer.reports").joinpath("templates/review.js").read_text(encoding="utf-8")
    page = render(
        "review.html",
        content=Markup(content.replace("<", "\\u003c")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        count=len(rows),
    )
    with output_file(out) as part:
        part.write_text(page, encoding="utf-8")


FORMATS: Mapping[str, Callable[[Sequence[Look], Sequence[str], Path], None]] = {
    "csv": write_csv,
    "label-studio": write_label_studio,
    "html": write_page,
}


def _task(look: Look) -> dict[str, Any]:
    """Return a task of Label Studio."""
    details = (
        f"{look.source}; label: {look.previous_label or 'none'}; {look.purchases:,} purchases; "
        + ", ".join(f"{label} {p:.0%}" for label, p in look.alternatives)
    )
    suggestion = {
        "from_name": "label",
        "to_name": "name",
        "type": "choices",
        "value": {"choices": [look.suggestion]},
    }
    return {
        "data": {
            "name": look.name,
            "details": details,
            "previous_label": look.previous_label,
            "source": look.source,
            "value": round(look.value, 4),
        },
        "predictions": [
            {"model_version": "grocer", "score": look.alternatives[0][1], "result": [suggestion]}
        ],
    }
