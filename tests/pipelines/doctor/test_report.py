"""Protects `grocer doctor`: its exit codes, its two forms, and that no probe waits or breaks it."""

import contextlib
import io
import json
import sys
import threading

import pytest

from pipelines.cli.main import execute
from pipelines.doctor import cluster as doctor_cluster
from pipelines.doctor import machine as doctor_machine
from pipelines.doctor import report as doctor
from pipelines.doctor.report import asked, lacking, ok, reason, stops, unneeded

DEVICES = [ok("torch", "2.13.0"), ok("NF4 on the CPU", "computes"), unneeded("GPU", "none")]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """A machine without a cluster and a store; packages and torch have tests of their own."""
    for name in ("KUBECONFIG", "KF_PIPELINES_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(doctor_machine, "packages", lambda: ok("Packages", "all"))
    monkeypatch.setattr(doctor_machine, "devices", lambda: DEVICES)
    # How much the machine has to spare just now is no concern of these tests.
    monkeypatch.setattr(doctor_machine, "_memory", lambda: (4 * 2**30, 8 * 2**30))


def diagnosed(capsys, *options):
    """Exit code, whether it is ready, and the findings by what they are of."""
    code = execute(["doctor", "--json", *options])
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert err == ""
    assert told["ready"] == (code == 0)
    return code, {each.pop("what"): each for each in told["findings"]}


def test_a_laptop_needs_no_cluster(capsys):
    code, found = diagnosed(capsys)
    assert code == 0
    assert list(found) == [
        "Python",
        "Packages",
        "torch",
        "NF4 on the CPU",
        "GPU",
        "Memory",
        "Disk",
        "Kubernetes",
        "KServe",
        "Kubeflow Pipelines",
        "Object store",
    ]
    beyond = ("GPU", "Kubernetes", "KServe", "Kubeflow Pipelines", "Object store")
    states = {what: each["state"] for what, each in found.items()}
    assert states == {what: "not needed here" if what in beyond else "ok" for what in found}


def test_a_lack_that_stops_a_run_is_an_error(capsys, monkeypatch):
    monkeypatch.setattr(doctor_machine, "_memory", lambda: (2**30, 8 * 2**30))
    code, found = diagnosed(capsys)
    assert code == 2
    assert found["Memory"]["state"] == "lacking"
    assert found["Memory"]["needed"]
    assert found["Memory"]["found"] == "1.0 of 8.0 GiB free"


def test_a_cluster_that_is_away_is_none(capsys, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("clusters: [")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, found = diagnosed(capsys)
    assert code == 0
    for what in ("Kubernetes", "KServe", "Kubeflow Pipelines", "Object store"):
        assert found[what]["state"] == "lacking"
        assert found[what]["next"]


@pytest.mark.parametrize(
    ("option", "address", "what"),
    [
        ("--host", "http://127.0.0.1:9", "Kubeflow Pipelines"),
        ("--store", "s3://bundles/shop", "Object store"),
    ],
)
def test_what_was_asked_for_by_name_is_needed(capsys, monkeypatch, option, address, what):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, found = diagnosed(capsys, option, address)
    assert code == 2
    assert [name for name, each in found.items() if each["needed"]] == [what]


def test_packages_that_are_not_there_are_lacks(capsys, monkeypatch, tmp_path):
    (tmp_path / "config").touch()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    for package in ("kubernetes", "s3fs", "kfp"):
        monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    _, found = diagnosed(capsys)
    for what, package, extra in (
        ("Kubernetes", "kubernetes", "serve"),
        ("Object store", "s3fs", "data"),
        ("Kubeflow Pipelines", "kfp", "pipeline"),
    ):
        assert found[what]["state"] == "lacking"
        assert f"{package} is not installed" in found[what]["found"]
        assert found[what]["next"] == f"make setup, or: pip install -e '.[{extra}]'"


def test_the_table_has_a_row_for_each_and_the_next_step_in_it(capsys, monkeypatch):
    monkeypatch.setattr(
        doctor_machine, "packages", lambda: lacking("Packages", "no [b]", "make setup", True)
    )
    monkeypatch.setenv("COLUMNS", "120")
    assert execute(["doctor"]) == 2
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Packages "))
    assert lines[at].split() == ["Packages", "✗", "lacking", "no", "[b]"]
    assert lines[at + 1].split() == ["→", "make", "setup"]
    assert lines[-1] == "Not ready: Packages"
    assert sum("not needed here" in line for line in lines) == 5


def test_a_mistaken_address_is_one_line(capsys):
    assert execute(["doctor", "--store", "bundles"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("grocer: --store bundles: expected s3://bucket/prefix or gs://")


def test_a_probe_that_hangs_is_left_behind(monkeypatch):
    held = threading.Event()
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    try:
        (found,) = asked("It", "json", "data", lambda: held.wait() and [], "wait")
    finally:
        held.set()
    assert (found.state, found.found, found.next) == ("lacking", "no answer within 0.1 s", "wait")


def test_a_probe_that_breaks_is_a_finding():
    (found,) = asked("It", "json", "data", lambda: [1 / 0], "tell us", needed=True)
    assert found.found == "ZeroDivisionError: division by zero"
    assert stops([found, ok("That", "fine"), lacking("Other", "away", "look")]) == [found]


def test_a_silent_kubeflow_does_not_swallow_the_answer(capsys, monkeypatch):
    """kfp's client is kept quiet by way of sys.stdout, also while it is left behind."""
    held = threading.Event()

    def silent(*_):
        with contextlib.redirect_stdout(io.StringIO()):
            held.wait()
        return ok("Kubeflow Pipelines", "late")

    monkeypatch.setattr(doctor_cluster, "_kubeflow", silent)
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    try:
        code, found = diagnosed(capsys, "--host", "http://127.0.0.1:9")
    finally:
        held.set()
    assert code == 2
    assert found["Kubeflow Pipelines"]["found"] == "no answer within 0.1 s"


def test_the_innermost_reason_is_told():
    inner = ConnectionRefusedError(111, "Connection refused")
    outer = RuntimeError("Max retries exceeded")
    outer.reason = ValueError("new connection")
    outer.reason.__cause__ = inner
    assert reason(outer) == "Connection refused"
    assert reason(TimeoutError()) == "TimeoutError"
