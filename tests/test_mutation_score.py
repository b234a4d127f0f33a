"""Protects the bar of `make mutation`: no module passes on what was not killed."""

import pytest

from tests.mutation_score import main


def lines(killed, *others):
    fates = ["killed"] * killed + list(others)
    return [f"    grocer.gate.x__gap__mutmut_{n}: {fate}\n" for n, fate in enumerate(fates)]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (lines(17, "survived", "survived", "survived"), 0),
        (lines(16, "survived", "survived", "survived", "survived"), 1),
        (lines(16, "timeout", "survived", "survived", "survived"), 0),
        (lines(0, "no tests", "not checked", "suspicious"), 1),
        ([*lines(20), "    grocer.split.xǁAǁb__mutmut_1: survived\n"], 1),
        ([], 1),
    ],
)
def test_each_module_must_reach_the_limit(given, code):
    assert main(["85"], given) == code


def test_the_scores_are_told_by_module(capsys):
    main(["85"], [*lines(1, "survived"), "    grocer.split.x_side__mutmut_1: killed\n"])
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "grocer.gate               50.0 %  1 killed, 1 survived",
        "grocer.split             100.0 %  1 killed",
    ]
    assert told.err == "below 85 %: grocer.gate\n"
