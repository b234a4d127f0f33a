"""Policies of the images: what they stand on, who runs in them, and that only the lock decides."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = re.sub(r"\\\n\s*", "", (ROOT / "images" / "Dockerfile").read_text())
STAGES = {
    name: (base, commands.splitlines())
    for base, name, commands in re.findall(
        r"^FROM (\S+) AS (\w+)\n(.*?)(?=^FROM |\Z)", TEXT, re.M | re.S
    )
}
FINAL = ("data", "train", "serve")


def commands(stage: str) -> list[str]:
    """All that makes a stage, from its base on; a comment makes nothing."""
    base, own = STAGES[stage]
    own = [line for line in own if line and not line.startswith("#")]
    return commands(base) + own if base in STAGES else own


def values(stage: str, instruction: str) -> list[str]:
    lines = [line.partition(" ") for line in commands(stage)]
    return [rest for word, _, rest in lines if word == instruction]


def variables(stage: str) -> dict[str, str]:
    pairs = [pair.partition("=") for line in values(stage, "ENV") for pair in line.split()]
    return {name: value for name, _, value in pairs}


def test_the_base_is_named_by_digest() -> None:
    """A tag can change under its name: give name:tag@sha256:…"""
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"[^\s:@]+:[^\s:@]+@sha256:[0-9a-f]{64}", base)
    assert {base for base, _ in STAGES.values()} <= {"${PYTHON}", "scratch", *STAGES}
    assert len(STAGES) == len(re.findall("^FROM ", TEXT, re.M))


@pytest.mark.parametrize("stage", FINAL)
def test_an_image_ends_as_a_user_without_rights(stage: str) -> None:
    assert values(stage, "USER") == ["1000:1000"]
    assert commands(stage).index("USER 1000:1000") > max(
        index for index, line in enumerate(commands(stage)) if line.startswith(("RUN ", "COPY "))
    )


@pytest.mark.parametrize("stage", FINAL)
def test_an_image_holds_what_the_lock_names_and_no_more(stage: str) -> None:
    """Nothing but images/install brings packages: whole lists, no dependency besides."""
    base, *installs = values(stage, "RUN")
    assert "pip uninstall" in base
    for command in installs:
        assert command.split(" /build/tools/bin/")[-1] in (
            "install --requirements /build/list.txt",
            "install /build/dist/*.whl",
        )
    assert not values(stage, "COPY")
    assert not values(stage, "ADD")
    assert " --no-deps " in (ROOT / "images" / "install").read_text()
    listing = next(line for line in values("build", "RUN") if "list()" in line)
    assert " --constraints requirements.lock " in listing


def test_lists_ask_for_no_tool_of_developers() -> None:
    extras = set(re.findall(r"--extra (\S+)", TEXT))
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras == known["optional-dependencies"].keys() - {"dev"}


@pytest.mark.parametrize("stage", FINAL)
def test_what_libraries_keep_goes_to_the_writable_folder(stage: str) -> None:
    """A pod's root is read-only; /tmp is an emptyDir."""
    environment = variables(stage)
    caches = [name for name in environment if re.search("HOME|CACHE|DIR", name)]
    assert {"HOME", "HF_HOME", "GROCER_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR"} <= set(caches)
    for name in caches:
        assert re.match("/tmp(/|$)", environment[name]), name


@pytest.mark.parametrize("stage", FINAL)
def test_an_image_says_what_it_is(stage: str) -> None:
    labels = " ".join(values(stage, "LABEL"))
    assert f'org.opencontainers.image.title="grocer-{stage}"' in labels
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in labels


@pytest.mark.parametrize("stage", FINAL)
def test_signals_reach_the_process_itself(stage: str) -> None:
    """A shell in front of it would keep SIGTERM to itself: write the command as a list."""
    assert values(stage, "STOPSIGNAL") == ["SIGTERM"]
    for line in values(stage, "ENTRYPOINT") + values(stage, "CMD"):
        assert line.startswith("[")


def test_no_file_of_the_images_names_an_index_or_a_moving_tag() -> None:
    for path in (ROOT / "images").iterdir():
        assert ":latest" not in path.read_text()
        assert not re.search(r"https?://|--index", path.read_text()), path.name


def test_a_build_sees_only_what_is_packed() -> None:
    """.dockerignore lets in what it names; a new package of pyproject.toml must be there too."""
    first, *rest = (ROOT / ".dockerignore").read_text().split()
    assert first == "*"
    let_in = {line[1:] for line in rest if line.startswith("!")}
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert let_in == {
        *packages["packages"],
        "README.md",
        "images/install",
        "pyproject.toml",
        "requirements.lock",
    }
