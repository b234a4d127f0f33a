"""`grocer run` as a user sees it: exit codes, messages, and files.

Pipeline, components, runner and command are the real ones; only the domain below them is a toy.
"""

import errno
import json
import os
import signal
from collections import deque
from types import SimpleNamespace
from unittest.mock import Mock

import pytest

from grocer.errors import ConfigError
from grocer.release.lineage import Lineage
from pipelines.local import run as module
from tests.fixtures.model_registry import ModelRegistry

STRICT = ("--set", "gate.min_accuracy=0.995")
PAGES = {"report.html", "validation.html", "split.html", "loss.html", "decision.md"}
FILES = {"summary.json", "lineage.json", "config.json", "run.log", "artifacts"}


def test_model_is_deployed_only_if_the_gate_passes(toy):
    passed = toy.run("--set", "gate.min_test_products=30")
    assert (passed.returncode, passed.stderr) == (0, "")
    assert toy.outputs() == {"out"}
    assert {path.name for path in toy.out.iterdir()} == PAGES | FILES | {"bundle"}
    summary = json.loads((toy.out / "summary.json").read_text())
    assert summary["gate"]["passed"] is True
    (bundle,) = (toy.out / "bundle").iterdir()
    assert summary["bundle"] == {"path": str(bundle), "digest": bundle.name}
    assert list(summary["seconds"]) == [
        *("ingest", "validate", "build_dataset", "train", "evaluate", "gate", "deploy")
    ]
    assert all(mb > 0 for mb in summary["peak_rss_mb"].values())
    assert summary["order_lines"] == {"read": 10, "with_nulls": 2, "kept": 8}
    config = json.loads((toy.out / "config.json").read_text())
    assert config["gate"]["min_test_products"] == 30

    # Only events reach the console; the log has the frameworks' output, too.
    assert "message of train" in passed.stdout
    assert "framework" not in passed.stdout + passed.stderr
    assert "line of a framework" in (toy.out / "run.log").read_text()
    assert "Organic Bananas" in passed.stdout
    ended = [line.split()[1] for line in passed.stdout.splitlines() if line.startswith("✓")]
    assert ended == list(summary["seconds"])

    refused = toy.run()
    assert (refused.returncode, toy.outputs()) == (2, {"out"})
    assert "--replace" in refused.stderr

    failed = toy.run("--replace", *STRICT)
    assert (failed.returncode, failed.stderr) == (3, "")
    assert {path.name for path in toy.out.iterdir()} == PAGES | FILES
    summary = json.loads((toy.out / "summary.json").read_text())
    assert summary["gate"]["passed"] is False
    failures = {reason["rule"] for reason in summary["gate"]["reasons"] if not reason["passed"]}
    assert failures == {"accuracy"}
    assert summary["bundle"] is None
    assert "deploy" not in summary["seconds"]
    assert "– deploy" in failed.stdout
    assert "failed: nothing deployed" in failed.stdout


def test_run_is_registered_and_a_failing_registry_does_not_change_its_verdict(toy):
    with ModelRegistry() as registry:
        address = ("--set", f"registry.address={registry.url}")
        assert toy.run(*address).returncode == 0
        lineage = Lineage.read(toy.out)
        registry.fault = "500"
        failed = toy.run("--replace", *address, *STRICT)
    assert (failed.returncode, failed.stderr) == (3, "")
    assert failed.stdout.count("warning") == 1
    assert Lineage.read(toy.out).verdict == "failed"
    (version,), (artifact,) = registry.versions, registry.tables["artifacts"]
    assert (version["name"], version["externalId"]) == (lineage.run, lineage.bundle)
    assert artifact["uri"] == f"{toy.out}/bundle/{lineage.bundle}"


def test_user_error_in_a_step_is_one_line_and_changes_nothing(toy):
    toy.out.mkdir()
    (toy.out / "summary.json").write_text("{}")
    ended = toy.run("--replace", ingest="user error")
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("grocer: ")
    assert line.endswith("x.csv: no such column")
    assert "✗ ingest" in ended.stdout
    assert toy.outputs() == {"out"}
    assert (toy.out / "summary.json").read_text() == "{}"


def test_path_that_is_not_utf8_is_rejected(toy):
    ended = toy.run("--out", os.fsdecode(b"x\xff"))
    assert ended.returncode == 2
    assert ended.stderr.endswith("/x?: the path is not UTF-8; rename it\n")
    assert toy.outputs() == set()


def test_steps_are_independent_of_the_locale(toy, monkeypatch):
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    ended = toy.run(ingest="user error")
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)


def test_report_of_a_failed_validation_is_kept_beside_the_output(toy):
    report = toy.folder / "out.rejected" / "validation.html"
    report.parent.mkdir()
    report.write_text("of an earlier run")
    ended = toy.run(validate="reject")
    assert ended.returncode == 2
    assert "null product_name (3 of 30 rows)" in ended.stderr
    assert ended.stderr.endswith(f"(see {report})\n")
    assert toy.outputs() == {"out.rejected"}
    assert report.read_text() == "<p>validation</p>"


def test_user_error_after_validation_names_no_report(toy):
    ended = toy.run(build_dataset="user error")
    assert (ended.returncode, toy.outputs()) == (2, set())
    assert ended.stderr.endswith("x.csv: no such column\n")


@pytest.mark.parametrize(
    ("behaviour", "reason", "output"),
    [
        ("crash", "step ingest failed: ZeroDivisionError: internal", "Traceback"),
        ("kill", "step ingest was killed", "Killed"),
        ("exit", "step ingest was killed or crashed", "line of a framework"),
    ],
)
def test_internal_error_names_the_step_and_keeps_its_log(toy, behaviour, reason, output):
    ended = toy.run(ingest=behaviour)
    assert ended.returncode == 1
    *tail, line = ended.stderr.splitlines()
    assert line.startswith(f"grocer: {reason}")
    assert line.endswith(f"log: {toy.out}.failed.log")
    assert any("line of a framework" in each or "sitecustomize" in each for each in tail)
    assert "✗ ingest" in ended.stdout
    assert toy.outputs() == {"out.failed.log"}
    assert output in (toy.folder / "out.failed.log").read_text()


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "stuck"), (signal.SIGTERM, "hang")])
def test_interrupt_leaves_no_process_and_no_file(toy, number, how):
    process = toy.start(ingest=how)
    assert any("waiting" in line for line in process.stdout)
    assert toy.processes()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("grocer: interrupted")
    assert toy.processes() == []
    assert toy.outputs() == set()


def test_killed_run_ends_its_steps_and_the_next_run_cleans_up(toy):
    process = toy.start(ingest="hang")
    assert any("waiting" in line for line in process.stdout)
    other = toy.run()
    assert (other.returncode, "in use by another run" in other.stderr) == (2, True)
    process.kill()
    process.stdout.read()  # ends when the last process that could write to it has ended
    process.wait()
    assert toy.outputs() == {".out.running"}
    assert toy.run(ingest="user error").returncode == 2
    assert toy.outputs() == set()


def test_output_is_read_although_the_disk_is_full():
    tail = deque()
    log = SimpleNamespace(write=Mock(side_effect=OSError(errno.ENOSPC, "No space left")))
    module._copy_output(["one\n", "two\n"], log, tail)
    assert list(tail) == ["one", "two"]


def test_older_kfp_is_rejected(monkeypatch):
    monkeypatch.setattr(module, "version", lambda name: "2.16.1")
    with pytest.raises(ConfigError, match=r"kfp 2\.16\.1"):
        module.check_kfp()
