"""Tests of policies for images/Dockerfile: pinned base, non-root user, locked packages."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", "", (ROOT / "images" / "Dockerfile").read_text())
STAGES = {
    name: (base, instructions.splitlines())
    for base, name, instructions in re.findall(
        r"^FROM (\S+) AS (\w+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S
    )
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
every_image = pytest.mark.parametrize("stage", ["data", "train", "serve"])


def instructions(stage: str) -> list[str]:
    """Return all instructions of a stage, those of its base stages first, without comments."""
    base, lines = STAGES[stage]
    lines = [line for line in lines if line and not line.startswith("#")]
    return instructions(base) + lines if base in STAGES else lines


def arguments(stage: str, instruction: str) -> list[str]:
    """Return the arguments of each instruction of one kind, such as RUN."""
    lines = [line.partition(" ") for line in instructions(stage)]
    return [rest for word, _, rest in lines if word == instruction]


def test_base_image_is_pinned_by_digest() -> None:
    """A tag is mutable: use name:tag@sha256:…"""
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"[^\s:@]+:[^\s:@]+@sha256:[0-9a-f]{64}", base)
    assert {base for base, _ in STAGES.values()} <= {"${PYTHON}", "scratch", *STAGES}
    assert len(STAGES) == len(re.findall("^FROM ", TEXT, re.M))


@every_image
def test_image_runs_as_non_root_user(stage: str) -> None:
    assert arguments(stage, "USER") == ["1000:1000"]
    assert instructions(stage).index("USER 1000:1000") > max(
        index
        for index, line in enumerate(instructions(stage))
        if line.startswith(("RUN ", "COPY "))
    )


@every_image
def test_packages_come_from_the_lock_only(stage: str) -> None:
    """Only images/install adds packages: fully resolved lists, without dependency resolution."""
    _, *installs = arguments(stage, "RUN")
    for command in installs:
        assert command.split(" /build/tools/bin/")[-1] in (
            "install --requirements /build/list.txt",
            "install /build/dist/*.whl",
        )
    assert not arguments(stage, "COPY")
    assert not arguments(stage, "ADD")
    script = (ROOT / "images" / "install").read_text()
    assert " --no-deps " in script
    assert " --constraints /build/tools/requirements.lock " in script
    listing = next(line for line in arguments("build", "RUN") if "list()" in line)
    assert " --constraints requirements.lock " in listing


def test_images_use_every_extra_but_dev_and_spark() -> None:
    """Steps of a pipeline do not use Spark; `grocer submit` rejects it."""
    extras = set(re.findall(r"--extra (\S+)", TEXT))
    assert extras == PROJECT["project"]["optional-dependencies"].keys() - {"dev", "spark"}


@every_image
def test_caches_are_below_tmp(stage: str) -> None:
    """A pod's root file system is read-only; /tmp is an emptyDir volume."""
    pairs = [pair.partition("=") for line in arguments(stage, "ENV") for pair in line.split()]
    caches = {name: path for name, _, path in pairs if re.search("HOME|CACHE|DIR", name)}
    assert {"HOME", "HF_HOME", "GROCER_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR"} <= caches.keys()
    for name, path in caches.items():
        assert re.match("/tmp(/|$)", path), name


@every_image
def test_image_has_title_and_licence_labels(stage: str) -> None:
    labels = " ".join(arguments(stage, "LABEL"))
    assert f'org.opencontainers.image.title="grocer-{stage}"' in labels
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in labels


@every_image
def test_command_receives_signals(stage: str) -> None:
    """The shell form would not forward SIGTERM: use the exec form."""
    assert arguments(stage, "STOPSIGNAL") == ["SIGTERM"]
    for line in arguments(stage, "ENTRYPOINT") + arguments(stage, "CMD"):
        assert line.startswith("[")


def test_wheel_records_commit_and_lock() -> None:
    """grocer/release/provenance.py reads them."""
    build = " ".join(instructions("build"))
    assert "ARG COMMIT" in build
    assert '"$COMMIT" "$(sha256sum requirements.lock' in build
    assert "source/grocer/build.json" in build


def test_no_package_index_or_latest_tag_is_hard_coded() -> None:
    for path in (ROOT / "images").iterdir():
        assert ":latest" not in path.read_text()
        assert not re.search(r"https?://|--index", path.read_text()), path.name


def test_build_context_holds_the_packaged_directories_only() -> None:
    """.dockerignore is an allow list; a new top-level package must be added to it."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {line[1:] for line in rest if line.startswith("!")} == {
        *(package.rstrip("*") for package in packages),
        "LICENSE",  # whoever redistributes an image must pass it on
        "README.md",
        "images/install",
        "images/locked",
        "pyproject.toml",
        "requirements.lock",
    }
