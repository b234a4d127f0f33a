"""A toy domain for the real pipeline: on PYTHONPATH, it replaces the stages that take minutes.

Each step is still a process of the compiled pipeline, and the gate is the real one. The source
directory's `behaviour.json` says which step fails, and how.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

from grocer.artifacts.adapter import Adapter
from grocer.artifacts.counts import Counts
from grocer.artifacts.evaluation import Evaluation
from grocer.artifacts.splits import Splits
from grocer.artifacts.validation_report import ValidationReport
from grocer.errors import TableError
from grocer.io.atomic import output_directory, tree_digest, tree_digests
from grocer.progress import Ticker, say
from tests.fixtures.evaluations import evaluation as evaluation_content
from tests.fixtures.evaluations import parse
from tests.fixtures.stage_artifacts import ADAPTER, COUNTS, SPLITS

IGNORES_SIGTERM = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("waiting", flush=True)
time.sleep(600)
"""


def behave(step: str, tables: Path) -> None:
    """Print what frameworks print, report progress, and fail as the source data says."""
    print(f"Loading weights: 100%|####| {step}", end="\r", file=sys.stderr)
    print("line of a framework", flush=True)
    print("5%|#    |", end="", flush=True)
    say(step, f"message of {step}")
    print("·", flush=True)  # as in messages of real steps
    Ticker(step, 10, "items", every=0).at(5)
    match json.loads((tables / "behaviour.json").read_text()).get(step):
        case "user error":
            raise TableError(f"{tables / 'x.csv'}: no such column")
        case "crash":
            raise ZeroDivisionError("internal")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "hang":
            say(step, "waiting")
            time.sleep(600)
        case "stuck":
            command = [sys.executable, "-S", "-c", IGNORES_SIGTERM]
            child = subprocess.Popen(command, stdout=subprocess.PIPE)
            child.stdout.readline()
            say(step, "waiting")
            time.sleep(600)


def ingest(data: str, config: object, out: Path, label: str) -> Counts:
    Path(out, "behaviour.json").write_text(Path(data, "behaviour.json").read_text())
    COUNTS.write(out)
    behave("ingest", out)
    return COUNTS


def validate(tables: Counts, config: object, out: Path) -> ValidationReport:
    (out / "validation.html").write_text("<p>validation</p>")
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
    behave("build_dataset", out)
    SPLITS.write(out)
    (out / "split.html").write_text("<p>split</p>")
    return SPLITS


def train(splits: Splits, config: object, out: Path) -> Adapter:
    behave("train", splits.directory)
    ADAPTER.write(out)
    (out / "loss.html").write_text("<p>loss</p>")
    return ADAPTER


def evaluate(
    adapter: Adapter, splits: Splits, config: object, out: Path, champion: object = None
) -> Evaluation:
    (out / "report.html").write_text("<p>report</p>")
    behaviour = json.loads((splits.directory / "behaviour.json").read_text()).get("evaluate")
    won_and_lost = (5, 20) if behaviour == "lose" else (28, 6)
    evaluation = parse(evaluation_content(champion=won_and_lost if champion else None))
    evaluation.write(out)
    return evaluation


def write_bundle(
    model, splits, evaluation, decision, config, root: Path, signing_key: str | None
) -> SimpleNamespace:
    with output_directory(root / "new") as part:
        (part / "bundle.json").write_text("{}")
    digest = tree_digest(tree_digests(root / "new"))
    (root / "new").rename(root / digest)
    return SimpleNamespace(path=root / digest)


def open_bundle(uri: str, directory: Path, **options: object) -> SimpleNamespace:
    return SimpleNamespace()


def smoke_test(bundle: SimpleNamespace, names: tuple[str, ...]) -> list[dict]:
    return [{"product_name": name, "department": "a", "probability": 0.75} for name in names]


def _replace(name: str, **members: object) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    sys.modules[name] = module


_replace("grocer.ingest.run", run=ingest)
_replace("grocer.validation.run", run=validate)
_replace("grocer.dataset.run", run=build_dataset, most_purchased=lambda splits: ["Organic Bananas"])
_replace("grocer.training.run", run=train)
_replace("grocer.evaluation.champion", Champion=lambda bundle, address: address)
_replace("grocer.evaluation.run", run=evaluate)
_replace(
    "grocer.release.bundle",
    write_bundle=write_bundle,
    load_bundle=lambda path: SimpleNamespace(path=path),
)
_replace("grocer.release.registry", open_bundle=open_bundle, is_image=lambda uri: False)
_replace("serving.rollout.smoke_test", smoke_test=smoke_test)
