"""Machine checks of `grocer doctor`, with missing and broken parts."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.doctor import machine
from pipelines.doctor.machine import device_findings, devices, disk, memory, packages, python

T4 = {
    "name": "Tesla T4",
    "memory": 15.6e9,
    "precision": "fp16",
    "dtype": "float16: compute capability 7.5 has no bfloat16",
    "nf4": None,
}
RESULT = {"torch": "2.13.0", "nf4": None, "gpu": None}


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10), "failed"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "failed")],
)
def test_python(version, state):
    assert python(version).state == state


def test_python_versions_match_pyproject():
    supported = SpecifierSet(metadata.metadata("grocer")["Requires-Python"])
    candidates = [(3, minor) for minor in range(9, 20)]
    versions = [each for each in candidates if supported.contains(".".join(map(str, each)))]
    assert versions == list(machine.PYTHONS)


def test_all_packages_are_installed():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    installed = {str(Requirement(each).specifier) for each in metadata.requires("grocer")}
    if installed != {str(Requirement(each).specifier) for group in groups for each in group}:
        pytest.skip("Grocer was installed from another pyproject.toml: make setup")
    finding = packages()
    assert finding.state == "ok"
    assert finding.found.endswith(" of data, train, serve, pipeline")


def test_missing_and_outdated_packages(monkeypatch):
    requirements = [
        'duckdb==2.0.0; extra == "data"',
        'kfp[kubernetes]>=2.17; extra == "pipeline"',
        'kserve>=0.20; extra == "serve"',
    ]
    versions = {"duckdb": "1.4.0", "kserve": "0.21.0"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    monkeypatch.setattr(metadata, "version", version)
    finding = packages()
    assert (finding.state, finding.needed) == ("failed", True)
    assert finding.found == "duckdb is 1.4.0, required ==2.0.0; kfp is not installed"
    assert finding.next == "make setup, or: pip install -e '.[data,pipeline]'"
    assert packages(("serve",)).state == "ok"


def test_extra_can_include_another(monkeypatch):
    requirements = ["rich", 'grocer[model]; extra == "train"', 'torch; extra == "model"']
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    required = machine._requirements(["train"])
    assert {name: extra for name, (_, extra) in required.items()} == {"rich": "", "torch": "model"}
    assert set(machine._requirements(["data"])) == {"rich"}


def test_grocer_is_not_installed(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert packages().next == "make setup"


def test_gpu_is_reported_with_precision_and_nf4_type():
    *_, gpu = device_findings({**RESULT, "gpu": T4})
    assert gpu.state == "ok"
    assert gpu.found == (
        "Tesla T4, 14.5 GiB; fp16; NF4 computes in float16: compute capability 7.5 has no bfloat16"
    )


def test_broken_nf4_is_blocking_on_the_cpu_only():
    torch, cpu, gpu = device_findings({**RESULT, "nf4": "RuntimeError: no kernel"})
    assert (torch.state, gpu.state) == ("ok", "optional")
    assert (cpu.state, cpu.needed) == ("failed", True)
    assert "no kernel" in cpu.found
    _, cpu, gpu = device_findings({**RESULT, "gpu": {**T4, "nf4": "RuntimeError: no kernel image"}})
    assert cpu.state == "ok"
    assert (gpu.state, gpu.needed) == ("failed", False)
    assert gpu.next == "python -m bitsandbytes"


def test_driver_without_device_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_DRIVER", tmp_path)
    *_, gpu = device_findings({**RESULT, "torch": "2.13.0+cpu"})
    assert (gpu.state, gpu.needed) == ("failed", False)
    assert "torch 2.13.0+cpu finds no device" in gpu.found


def replace_device_check(monkeypatch, code):
    """Run other code instead of `pipelines.doctor.device`."""
    run = subprocess.run

    def run_code(command, **options):
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", run_code)


def test_devices_are_checked_in_a_child_process(monkeypatch):
    replace_device_check(
        monkeypatch, f"print('a warning'); print({json.dumps(json.dumps(RESULT))})"
    )
    assert [each.what for each in devices()] == ["torch", "NF4 on the CPU", "GPU"]


@pytest.mark.parametrize(
    ("code", "fragment"),
    [
        ("import missing_torch", "No module named 'missing_torch'"),
        ("import os; os.abort()", "exit code -6"),
        ("import time; time.sleep(60)", "no response within 0.2 s"),
    ],
)
def test_torch_that_is_missing_crashes_or_hangs_is_a_failure(monkeypatch, code, fragment):
    if "sleep" in code:
        monkeypatch.setattr(machine, "_DEVICE_SECONDS", 0.2)
    replace_device_check(monkeypatch, code)
    (finding,) = devices()
    assert (finding.what, finding.state, finding.needed) == ("torch", "failed", True)
    assert fragment in finding.found
    assert finding.next


@pytest.mark.parametrize(
    ("available", "limit", "used", "state"),
    [
        (7_000_000, None, None, "ok"),
        (4_000_000, None, None, "failed"),
        (7_000_000, "max", "0", "ok"),
        (7_000_000, str(4 * 2**30), "0", "failed"),
        (7_000_000, str(7 * 2**30), str(3 * 2**30), "failed"),
    ],
)
def test_memory_is_limited_by_machine_and_control_group(
    monkeypatch, tmp_path, available, limit, used, state
):
    (tmp_path / "meminfo").write_text(f"MemTotal: 8000000 kB\nMemAvailable: {available} kB\n")
    monkeypatch.setattr(machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    finding = memory()
    assert finding.state == state
    assert finding.needed == (state == "failed")


def test_full_disk_is_a_failure(monkeypatch, tmp_path):
    assert disk(tmp_path).state == "ok"
    monkeypatch.setattr(machine, "MIN_FREE", 2**60)
    finding = disk(tmp_path)
    assert (finding.state, finding.needed) == ("failed", True)
    assert str(tmp_path) in finding.found


def test_read_only_disk_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda *_: False)  # root can write anywhere
    assert disk(tmp_path).next == "choose another --out"
