"""`grocer doctor`: exit codes, JSON and table output, timeouts and errors of probes."""

import contextlib
import io
import json
import sys
import threading

import pytest

from pipelines.cli.main import execute
from pipelines.doctor import cluster, machine, report
from pipelines.doctor.report import blocking, failed, ok, optional, probe

DEVICES = [ok("torch", "2.13.0"), ok("NF4 on the CPU", "computes"), optional("GPU", "none")]


@pytest.fixture(autouse=True)
def isolated(monkeypatch, tmp_path):
    """A machine without cluster and store; packages and devices are tested elsewhere."""
    for name in ("KUBECONFIG", "KF_PIPELINES_ENDPOINT", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(machine, "packages", lambda: ok("Packages", "all"))
    monkeypatch.setattr(machine, "devices", lambda: DEVICES)
    # Independent of the memory of the machine that runs the tests.
    monkeypatch.setattr(machine, "_memory", lambda: (6 * 2**30, 8 * 2**30))


def run_doctor(capsys, *options):
    """The exit code, and the findings by what was checked."""
    code = execute(["doctor", "--json", *options])
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert err == ""
    assert result["ready"] == (code == 0)
    return code, {each.pop("what"): each for each in result["findings"]}


def test_local_run_needs_no_cluster(capsys):
    code, findings = run_doctor(capsys)
    assert code == 0
    assert list(findings) == [
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
    not_required = ("GPU", "Kubernetes", "KServe", "Kubeflow Pipelines", "Object store")
    states = {what: each["state"] for what, each in findings.items()}
    assert states == {what: "optional" if what in not_required else "ok" for what in findings}


def test_blocking_failure_exits_with_2(capsys, monkeypatch):
    monkeypatch.setattr(machine, "_memory", lambda: (2**30, 8 * 2**30))
    code, findings = run_doctor(capsys)
    assert code == 2
    assert findings["Memory"]["state"] == "failed"
    assert findings["Memory"]["needed"]
    assert findings["Memory"]["found"] == "1.0 of 8.0 GiB available"


@pytest.mark.parametrize("is_named", [False, True])
def test_unreachable_cluster_is_blocking_if_named(capsys, monkeypatch, tmp_path, is_named):
    (tmp_path / ".kube").mkdir()
    config = tmp_path / ".kube" / "config"
    config.write_text("clusters: [")
    if is_named:
        monkeypatch.setenv("KUBECONFIG", str(config))
    code, findings = run_doctor(capsys)
    assert code == (2 if is_named else 0)
    for what in ("Kubernetes", "KServe"):
        assert (findings[what]["state"], findings[what]["needed"]) == ("failed", is_named)
        assert findings[what]["next"]


def test_addresses_of_the_environment_are_needed(capsys, monkeypatch):
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, findings = run_doctor(capsys)
    assert code == 2
    for what in ("Kubeflow Pipelines", "Object store"):
        assert (findings[what]["state"], findings[what]["needed"]) == ("failed", True)
        assert findings[what]["next"]


@pytest.mark.parametrize(
    ("option", "address", "what"),
    [
        ("--host", "http://127.0.0.1:9", "Kubeflow Pipelines"),
        ("--store", "s3://bundles/shop", "Object store"),
    ],
)
def test_named_host_or_store_is_needed(capsys, monkeypatch, option, address, what):
    if option == "--store":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    code, findings = run_doctor(capsys, option, address)
    assert code == 2
    assert [name for name, each in findings.items() if each["needed"]] == [what]


def test_missing_packages_are_failures(capsys, monkeypatch, tmp_path):
    (tmp_path / "config").touch()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", "http://127.0.0.1:9")
    for package in ("kubernetes", "s3fs", "kfp"):
        monkeypatch.setitem(sys.modules, package, None)  # not importable
    _, findings = run_doctor(capsys)
    for what, package, extra in (
        ("Kubernetes", "kubernetes", "serve"),
        ("Object store", "s3fs", "data"),
        ("Kubeflow Pipelines", "kfp", "pipeline"),
    ):
        assert findings[what]["state"] == "failed"
        assert f"{package} is not installed" in findings[what]["found"]
        assert findings[what]["next"] == f"make setup, or: pip install -e '.[{extra}]'"


def test_table_has_a_row_per_check_with_the_next_step(capsys, monkeypatch):
    monkeypatch.setattr(
        machine, "packages", lambda: failed("Packages", "no [b]", "make setup", True)
    )
    monkeypatch.setenv("COLUMNS", "120")
    assert execute(["doctor"]) == 2
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("Packages "))
    assert lines[at].split() == ["Packages", "✗", "failed", "no", "[b]"]
    assert lines[at + 1].split() == ["→", "make", "setup"]
    assert lines[-1] == "Not ready: Packages"
    assert sum("optional" in line for line in lines) == 5


def test_invalid_address_is_one_line(capsys):
    assert execute(["doctor", "--store", "bundles"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "--store bundles: expected s3://" in line


def test_probe_that_hangs_times_out(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(report, "TIMEOUT", 0.1)
    try:
        (finding,) = probe("Service", "json", "data", lambda: released.wait() and [], "wait")
    finally:
        released.set()
    assert (finding.state, finding.found, finding.next) == (
        "failed",
        "no response within 0.1 s",
        "wait",
    )


def test_probe_that_raises_is_a_failure():
    (finding,) = probe("Service", "json", "data", lambda: [1 / 0], "report it", needed=True)
    assert finding.found == "ZeroDivisionError: division by zero"
    assert blocking(
        [finding, ok("Other", "fine"), failed("Not needed", "unreachable", "retry")]
    ) == [finding]


def test_kubeflow_timeout_does_not_swallow_the_output(capsys, monkeypatch):
    """The probe redirects sys.stdout to silence kfp, also after its timeout."""
    released = threading.Event()

    def hanging(*_):
        with contextlib.redirect_stdout(io.StringIO()):
            released.wait()
        return ok("Kubeflow Pipelines", "late")

    monkeypatch.setattr(cluster, "_kubeflow", hanging)
    monkeypatch.setattr(report, "TIMEOUT", 0.1)
    try:
        code, findings = run_doctor(capsys, "--host", "http://127.0.0.1:9")
    finally:
        released.set()
    assert code == 2
    assert findings["Kubeflow Pipelines"]["found"] == "no response within 0.1 s"
