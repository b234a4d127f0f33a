"""`grocer run` as a user sees it: exit codes, what is said, what is left, and what never is.

The pipeline, the components, the runner and the command are the real ones; only the domain
below them is a toy.
"""

import json
import signal

import pytest

from grocer.errors import ConfigError
from pipelines.local import run as module

PASS = ("--set", "gate.min_accuracy=0.5")
PAGES = {"report.html", "validation.html", "split.html", "loss.html", "decision.md"}
FILES = {"summary.json", "config.json", "run.log", "artifacts"}


def test_a_yes_is_deployed_and_a_no_is_not(toy):
    yes = toy.run(*PASS)
    assert (yes.returncode, yes.stderr) == (0, "")
    assert toy.left() == {"out"}
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
    assert config["gate"]["min_accuracy"] == 0.5

    # Only lines of ours reach the console; the log has the rest.
    assert "train speaks" in yes.stdout
    assert "framework" not in yes.stdout + yes.stderr
    assert "a framework's own line" in (toy.out / "run.log").read_text()
    assert "Organic Bananas" in yes.stdout

    refused = toy.run()
    assert (refused.returncode, toy.left()) == (2, {"out"})
    assert "give --replace" in refused.stderr

    no = toy.run("--replace")
    assert (no.returncode, no.stderr) == (3, "")
    assert {path.name for path in toy.out.iterdir()} == PAGES | FILES
    summary = json.loads((toy.out / "summary.json").read_text())
    assert summary["gate"]["passed"] is False
    assert summary["bundle"] is None
    assert "deploy" not in summary["seconds"]
    assert "skipped: the gate said no" in no.stdout
    assert "no: nothing is served" in no.stdout


def test_a_mistake_that_a_step_finds_is_one_line_and_changes_nothing(toy):
    toy.out.mkdir()
    (toy.out / "summary.json").write_text("{}")
    ended = toy.run("--replace", ingest="mistake")
    assert ended.returncode == 2
    assert ended.stderr.startswith("grocer: ")
    assert ended.stderr.endswith("x.csv: no such column\n")
    assert ended.stderr.count("\n") == 1
    assert toy.left() == {"out"}
    assert (toy.out / "summary.json").read_text() == "{}"


def test_expectations_that_fail_leave_what_they_found_beside_the_output(toy):
    found = toy.folder / "out.rejected" / "validation.html"
    found.parent.mkdir()
    found.write_text("of an earlier run")
    ended = toy.run(validate="reject")
    assert ended.returncode == 2
    assert "null product_name (3 of 30 rows)" in ended.stderr
    assert ended.stderr.endswith(f"(see {found})\n")
    assert toy.left() == {"out.rejected"}
    assert found.read_text() == "<p>violations</p>"


@pytest.mark.parametrize(("how", "told"), [("crash", "ZeroDivisionError"), ("killed", "Killed")])
def test_a_step_that_breaks_says_where_and_keeps_its_log(toy, how, told):
    ended = toy.run(ingest=how)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert "grocer: ingest broke; its log: " in ended.stderr
    assert toy.left() == {"out.failed.log"}
    assert "a framework's own line" in (toy.folder / "out.failed.log").read_text()


@pytest.mark.parametrize(("number", "how"), [(signal.SIGINT, "stuck"), (signal.SIGTERM, "hang")])
def test_an_interrupt_to_the_parent_alone_leaves_no_process_and_no_file(toy, number, how):
    process = toy.start(ingest=how)
    assert any("hangs" in line for line in process.stdout)
    assert toy.processes()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "grocer: interrupted; nothing of the run is left\n"
    assert toy.processes() == []
    assert toy.left() == set()


def test_killing_the_parent_ends_its_steps_and_the_next_run_clears_up(toy):
    process = toy.start(ingest="hang")
    assert any("hangs" in line for line in process.stdout)
    other = toy.run()
    assert (other.returncode, "another run is at work" in other.stderr) == (2, True)
    process.kill()
    process.stdout.read()  # ends when the last process that could write to it has
    process.wait()
    assert toy.left() == {".out.running"}
    assert toy.run(ingest="mistake").returncode == 2
    assert toy.left() == set()


def test_an_older_kfp_is_refused(monkeypatch):
    monkeypatch.setattr(module, "version", lambda name: "2.16.1")
    with pytest.raises(ConfigError, match=r"kfp 2\.16\.1 .* can deploy what the gate refused"):
        module.check_kfp()
