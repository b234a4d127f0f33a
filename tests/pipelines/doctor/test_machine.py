"""Protects what `grocer doctor` says of this machine, with parts that are wrong or absent."""

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.doctor import machine as doctor_machine
from pipelines.doctor.machine import devices, disk, memory, packages, python, told

T4 = {
    "name": "Tesla T4",
    "memory": 15.6e9,
    "precision": "fp16: compute capability 7.5 has no bfloat16",
    "dtype": "float16",
    "nf4": None,
}
FOUND = {"torch": "2.13.0", "nf4": None, "gpu": None}


@pytest.mark.parametrize(
    ("version", "state"),
    [((3, 10), "lacking"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "lacking")],
)
def test_python(version, state):
    assert python(version).state == state


def test_the_pythons_are_those_of_the_project():
    wanted = SpecifierSet(metadata.metadata("grocer")["Requires-Python"])
    every = [(3, minor) for minor in range(9, 20)]
    assert [each for each in every if wanted.contains(".".join(map(str, each)))] == list(
        doctor_machine.PYTHONS
    )


def test_all_packages_are_here():
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    named = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = {str(Requirement(each).specifier) for each in metadata.requires("grocer")}
    if asked != {str(Requirement(each).specifier) for group in named for each in group}:
        pytest.skip("Grocer was installed from another pyproject.toml: make setup")
    found = packages()
    assert found.state == "ok"
    assert found.found.endswith(" of data, train, serve, pipeline")


def test_packages_that_lack_or_are_of_another_version(monkeypatch):
    asked = [
        'duckdb==2.0.0; extra == "data"',
        'kfp[kubernetes]>=2.17; extra == "pipeline"',
        'kserve>=0.20; extra == "serve"',
    ]
    there = {"duckdb": "1.4.0", "kserve": "0.21.0"}

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    monkeypatch.setattr(metadata, "version", version)
    found = packages()
    assert (found.state, found.needed) == ("lacking", True)
    assert found.found == "duckdb is 1.4.0, wanted ==2.0.0; kfp is not installed"
    assert found.next == "make setup, or: pip install -e '.[data,pipeline]'"
    assert packages(("serve",)).state == "ok"


def test_an_extra_may_name_another(monkeypatch):
    asked = ["rich", 'grocer[model]; extra == "train"', 'torch; extra == "model"']
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    wanted = doctor_machine._requirements(["train"])
    assert {name: extra for name, (_, extra) in wanted.items()} == {"rich": "", "torch": "model"}
    assert set(doctor_machine._requirements(["data"])) == {"rich"}


def test_grocer_that_is_not_installed(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert packages().next == "make setup"


def test_a_t4_is_told_with_what_it_computes_in():
    *_, gpu = told({**FOUND, "gpu": T4})
    assert gpu.state == "ok"
    assert gpu.found == (
        "Tesla T4, 14.5 GiB; fp16: compute capability 7.5 has no bfloat16; NF4 computes in float16"
    )


def test_nf4_that_fails_stops_a_run_on_the_cpu_alone():
    torch, cpu, gpu = told({**FOUND, "nf4": "RuntimeError: no kernel"})
    assert (torch.state, gpu.state) == ("ok", "not needed here")
    assert (cpu.state, cpu.needed) == ("lacking", True)
    assert "no kernel" in cpu.found
    _, cpu, gpu = told({**FOUND, "gpu": {**T4, "nf4": "RuntimeError: no kernel image"}})
    assert cpu.state == "ok"
    assert (gpu.state, gpu.needed) == ("lacking", False)
    assert gpu.next == "python -m bitsandbytes"


def test_a_driver_without_a_device_is_a_lack(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_machine, "_DRIVER", tmp_path)
    *_, gpu = told({**FOUND, "torch": "2.13.0+cpu"})
    assert (gpu.state, gpu.needed) == ("lacking", False)
    assert "torch 2.13.0+cpu sees no device" in gpu.found


def child(monkeypatch, code):
    """Have another program answer in place of `pipelines.doctor.device`."""
    run = subprocess.run

    def instead(command, **options):
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(subprocess, "run", instead)


def test_the_devices_are_asked_in_a_process_of_their_own(monkeypatch):
    child(monkeypatch, f"print('a warning'); print({json.dumps(json.dumps(FOUND))})")
    assert [each.what for each in devices()] == ["torch", "NF4 on the CPU", "GPU"]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import torch_that_is_not_there", "No module named 'torch_that_is_not_there'"),
        ("import os; os.abort()", "ended with -6"),
        ("import time; time.sleep(60)", "no answer within 0.2 s"),
    ],
)
def test_a_torch_that_is_absent_crashes_or_hangs_stops_a_run(monkeypatch, code, said):
    if "sleep" in code:
        monkeypatch.setattr(doctor_machine, "_PATIENCE", 0.2)
    child(monkeypatch, code)
    (found,) = devices()
    assert (found.what, found.state, found.needed) == ("torch", "lacking", True)
    assert said in found.found
    assert found.next


@pytest.mark.parametrize(
    ("available", "limit", "used", "told"),
    [
        (3_000_000, None, None, "ok"),
        (1_000_000, None, None, "lacking"),
        (3_000_000, "max", "0", "ok"),
        (3_000_000, str(2**30), "0", "lacking"),
        (3_000_000, str(3 * 2**30), str(2 * 2**30), "lacking"),
    ],
)
def test_memory_is_what_machine_and_control_group_leave(
    monkeypatch, tmp_path, available, limit, used, told
):
    (tmp_path / "meminfo").write_text(f"MemTotal: 8000000 kB\nMemAvailable: {available} kB\n")
    monkeypatch.setattr(doctor_machine, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(doctor_machine, "_GROUP", tmp_path)
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
    found = memory()
    assert found.state == told
    assert found.needed == (told == "lacking")


def test_a_full_disk_stops_a_run(monkeypatch, tmp_path):
    assert disk(tmp_path).state == "ok"
    monkeypatch.setattr(doctor_machine, "ROOM", 2**60)
    found = disk(tmp_path)
    assert (found.state, found.needed) == ("lacking", True)
    assert str(tmp_path) in found.found


def test_so_does_a_place_that_can_not_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_machine.os, "access", lambda *_: False)  # root may write anywhere
    assert disk(tmp_path).next == "choose another --out"
