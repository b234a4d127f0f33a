"""A toy domain for the real pipeline: on PYTHONPATH it stands in for what takes minutes.

The steps run as the compiled pipeline runs them, each in a process of its own, but what they
call answers at once. The source directory's `behaviour.json` says what goes wrong in which step.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

from grocer.artifacts.base import BySide
from grocer.artifacts.counts import Counts, OrderLineCounts, OrphanCounts
from grocer.artifacts.splits import Overlap, Splits, Stratification
from grocer.artifacts.validation_report import ValidationReport
from grocer.errors import TableError
from grocer.io.atomic import tree_digest, tree_digests, whole_directory, write_json
from grocer.progress import Ticker, say

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("grocer | toy | hangs", flush=True)
time.sleep(600)
"""
METRICS = {"products": 9, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95}


def behave(step: str, tables: Path) -> None:
    """Do what the source asks of this step, after some noise as frameworks make it."""
    print(f"Loading weights: 100%|####| {step}", end="\r", file=sys.stderr)
    print("a framework's own line", flush=True)
    print("5%|#    |", end="", flush=True)
    say(step, f"{step} speaks")
    Ticker(step, 10, "items", every=0).at(5)
    match json.loads((tables / "behaviour.json").read_text()).get(step):
        case "mistake":
            raise TableError(f"{tables / 'x.csv'}: no such column")
        case "crash":
            raise ZeroDivisionError("a bug of ours")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            say(step, "hangs")
            time.sleep(600)
        case "stuck":
            # With a child that does not heed SIGTERM.
            subprocess.Popen([sys.executable, "-S", "-c", STUBBORN])
            time.sleep(600)


def ingest(data: str, config: object, out: Path) -> Counts:
    Path(out, "behaviour.json").write_text(Path(data, "behaviour.json").read_text())
    counts = Counts(
        order_lines=OrderLineCounts(read=10, orphans=0, joined=10, with_nulls=2, kept=8),
        products=30,
        departments=3,
        aisles=6,
        orphans=OrphanCounts(**dict.fromkeys(OrphanCounts.model_fields, 0)),
        nulls={},
        duplicates={},
        notes=(),
    )
    counts.write(out)
    behave("ingest", out)
    return counts


def validate(tables: Counts, config: object, out: Path) -> ValidationReport:
    (out / "validation.html").write_text("<p>violations</p>")
    behaviour = json.loads((tables.directory / "behaviour.json").read_text()).get("validate")
    failures = ("products: null product_name (3 of 30 rows)",) if behaviour == "reject" else ()
    report = ValidationReport(
        success=not failures, great_expectations_version="1", failures=failures, tables={}
    )
    report.write(out)
    return report


def build_dataset(tables: Counts, config: object, out: Path) -> Splits:
    behaviour = (tables.directory / "behaviour.json").read_text()
    (out / "behaviour.json").write_text(behaviour)
    sides = BySide[int](train=20, validation=5, test=5)
    splits = Splits(
        products=sides,
        purchases=sides,
        overlap=Overlap(**dict.fromkeys(Overlap.model_fields, 0)),
        departments={},
        without_test=(),
        stratification=Stratification(
            department="a", side="test", products=30, share=0.2, expected=0.1, z=0.5
        ),
        digests=BySide[str](train="a" * 64, validation="b" * 64, test="c" * 64),
        duplicate_names=0,
        label_conflicts=0,
        unlabelled=0,
        truncated_names=0,
    )
    splits.write(out)
    (out / "split.html").write_text("<p>split</p>")
    return splits


def train(splits: Splits, config: object, out: Path) -> SimpleNamespace:
    behave("train", splits.directory)
    (out / "loss.html").write_text("<p>loss</p>")
    return SimpleNamespace(model_dump=lambda **_: {"seconds": 0.1, "base": "toy"})


def evaluate(model: Path, splits: Path, config: object, out: Path, champion: object = None) -> dict:
    (out / "report.html").write_text("<p>report</p>")
    measured = {
        "labels": ["a", "b"],
        "metrics": dict.fromkeys(("train", "validation", "test"), METRICS),
        "aisles": None,
        "baselines": dict.fromkeys(("majority", "linear", "base_model"), METRICS),
        "confusion": [[4, 1], [0, 4]],
    }
    write_json(out / "evaluation.json", measured)
    return measured


def decide(evaluation: dict, policy: object) -> SimpleNamespace:
    passed = policy.min_accuracy <= 0.8
    reason = {"rule": "accuracy", "passed": passed, "sentence": "accuracy is at least 0.8"}
    return SimpleNamespace(
        passed=passed,
        to_json=lambda evaluation: {"passed": passed, "reasons": [reason], "of": evaluation},
        to_markdown=lambda: "# verdict\n",
    )


def write_bundle(model, splits, evaluation, decision, config, root: Path) -> SimpleNamespace:
    with whole_directory(root / "making") as part:
        (part / "bundle.json").write_text("{}")
    digest = tree_digest(tree_digests(root / "making"))
    (root / "making").rename(root / digest)
    return SimpleNamespace(path=root / digest)


def smoke_test(bundle: SimpleNamespace, names: tuple[str, ...]) -> list[dict]:
    return [{"product_name": name, "department": "a", "probability": 0.75} for name in names]


def _stand_in(name: str, **members: object) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


_stand_in("grocer.ingest.run", run=ingest)
_stand_in("grocer.validation.run", run=validate)
_stand_in(
    "grocer.dataset.run", run=build_dataset, most_purchased=lambda splits: ["Organic Bananas"]
)
_stand_in("grocer.training.run", run=train)
_stand_in("grocer.evaluation.run", evaluate=evaluate)
_stand_in("grocer.gate.rules", decide=decide)
_stand_in("grocer.release.bundle", write_bundle=write_bundle)
_stand_in("grocer.release.registry")
_stand_in("serving.rollout.smoke_test", smoke_test=smoke_test)
