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

from grocer.errors import ExpectationError, TableError
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


def ingest(source: str, config: object, out: Path) -> dict:
    Path(out, "behaviour.json").write_text(Path(source, "behaviour.json").read_text())
    lines = {"read": 10, "with_nulls": 2, "kept": 8, "orphans": 0}
    counts = {"order_lines": lines, "products": 30, "departments": 3}
    write_json(out / "counts.json", counts)
    behave("ingest", out)
    return counts


def validate(tables: Path, config: object, out: Path) -> SimpleNamespace:
    (out / "validation.html").write_text("<p>found</p>")
    write_json(out / "validation.json", {})
    wanted = json.loads((tables / "behaviour.json").read_text()).get("validate")

    def require() -> None:
        if wanted == "reject":
            raise ExpectationError("products: 3 names are empty (limit 0)")

    return SimpleNamespace(require=require)


def build(tables: Path, config: object, out: Path) -> dict:
    (out / "behaviour.json").write_text((tables / "behaviour.json").read_text())
    report = {"products": {"train": 20, "validation": 5, "test": 5}, "overlap": {"train_test": 0}}
    write_json(out / "split.json", report)
    (out / "split.html").write_text("<p>split</p>")
    return report


def train(splits: Path, config: object, out: Path) -> dict:
    behave("train", splits)
    (out / "loss.html").write_text("<p>loss</p>")
    return {"loss": 0.1, "name": "toy"}


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


_stand_in("grocer.ingest.run", ingest=ingest)
_stand_in("grocer.validation.run", validate=validate)
_stand_in("grocer.dataset.build", build=build, most_purchased=lambda splits: ["Organic Bananas"])
_stand_in("grocer.training.run", train=train)
_stand_in("grocer.evaluation.run", evaluate=evaluate)
_stand_in("grocer.gate.rules", decide=decide)
_stand_in("grocer.release.bundle", write_bundle=write_bundle)
_stand_in("grocer.release.registry")
_stand_in("serving.rollout.smoke_test", smoke_test=smoke_test)
