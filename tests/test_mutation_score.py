"""Tests of the threshold and the configuration of `make mutation`."""

import tomllib
from pathlib import Path

import pytest

from tests.mutation_score import main

ROOT = Path(__file__).parents[1]
MUTMUT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]


def results(killed, *statuses):
    """Lines as `mutmut results` prints them, for one module."""
    statuses = ["killed"] * killed + list(statuses)
    return [f"    grocer.gate.x__gap__mutmut_{n}: {s}\n" for n, s in enumerate(statuses)]


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (results(17, "survived", "survived", "survived"), 0),
        (results(16, "survived", "survived", "survived", "survived"), 1),
        (results(16, "timeout", "survived", "survived", "survived"), 0),
        (results(0, "no tests", "not checked", "suspicious"), 1),
        ([*results(20), "    grocer.split.xǁAǁb__mutmut_1: survived\n"], 1),
        ([], 1),
    ],
)
def test_every_module_must_reach_the_limit(lines, code):
    assert main(["85"], lines) == code


def test_scores_are_printed_by_module(capsys):
    main(["85"], [*results(1, "survived"), "    grocer.split.x_side__mutmut_1: killed\n"])
    output = capsys.readouterr()
    assert output.out.splitlines() == [
        "grocer.gate               50.0 %  1 killed, 1 survived",
        "grocer.split             100.0 %  1 killed",
    ]
    assert "grocer.gate" in output.err


@pytest.mark.parametrize("path", MUTMUT["only_mutate"])
def test_mutated_module_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("node_id", MUTMUT["pytest_add_cli_args_test_selection"])
def test_selected_test_exists(node_id):
    """A missing test would silently lower the score."""
    path, _, function = node_id.partition("::")
    assert f"def {function}" in (ROOT / path).read_text()
