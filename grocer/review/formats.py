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
from grocer.review.queue import Candidate

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


def write_csv(queue: Sequence[Candidate], labels: Sequence[str], out: Path) -> None:
    """Write a CSV file whose columns `label` and `who` the reviewer fills in.

    Excel reads it as UTF-8 because it starts with a byte order mark.
    """
    with output_file(out) as part, part.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(CSV_COLUMNS)
        for each in queue:
            others = "; ".join(f"{label} {p:.0%}" for label, p in each.alternatives[1:])
            cells = [each.name, "", "", each.previous_label, each.source, each.suggestion]
            cells += [f"{each.alternatives[0][1]:.4f}", others]
            cells += [str(each.purchases), f"{each.value:.2f}"]
            writer.writerow(map(formula_guarded, cells))


def write_label_studio(queue: Sequence[Candidate], labels: Sequence[str], out: Path) -> None:
    """Write tasks with predictions, and next to them the labelling interface as `OUT.xml`."""
    write_json(out, [_task(candidate) for candidate in queue])
    choices = "".join(f"<Choice value={quoteattr(label)}/>" for label in labels)
    with output_file(out.with_suffix(".xml")) as part:
        part.write_text(
            '<View><Header value="$name"/><Text name="name" value="$details"/>'
            '<Choices name="label" toName="name" choice="single" showInline="true">'
            f"{choices}</Choices></View>\n",
            encoding="utf-8",
        )


def write_page(queue: Sequence[Candidate], labels: Sequence[str], out: Path) -> None:
    """Write a page that needs no server and no network, and saves a CSV file."""
    rows = [
        {
            "name": candidate.name,
            "previous": candidate.previous_label,
            "source": candidate.source,
            "purchases": candidate.purchases,
            "alternatives": [[label, round(p, 4)] for label, p in candidate.alternatives],
        }
        for candidate in queue
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


FORMATS: Mapping[str, Callable[[Sequence[Candidate], Sequence[str], Path], None]] = {
    "csv": write_csv,
    "label-studio": write_label_studio,
    "html": write_page,
}


def _task(each: Candidate) -> dict[str, Any]:
    """Return a task of Label Studio."""
    details = (
        f"{each.source}; label: {each.previous_label or 'none'}; {each.purchases:,} purchases; "
        + ", ".join(f"{label} {p:.0%}" for label, p in each.alternatives)
    )
    suggestion = {
        "from_name": "label",
        "to_name": "name",
        "type": "choices",
        "value": {"choices": [each.suggestion]},
    }
    return {
        "data": {
            "name": each.name,
            "details": details,
            "previous_label": each.previous_label,
            "source": each.source,
            "value": round(each.value, 4),
        },
        "predictions": [
            {"model_version": "grocer", "score": each.alternatives[0][1], "result": [suggestion]}
        ],
    }
