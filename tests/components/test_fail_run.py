"""Protects the strict end of a run: a no of the gate fails it, in the gate's own words."""

import pytest

from components.fail_run import fail_run
from grocer.errors import BundleError
from tests.fixtures.artifacts import write_decision


class Artifact:
    def __init__(self, path):
        self.path = str(path)


def test_a_no_ends_with_the_rules_that_were_not_met(tmp_path, capsys):
    write_decision(tmp_path / "decision", {}, passed=False)
    with pytest.raises(BundleError, match=r"gate failed.*below 0\.85"):
        fail_run.python_func(decision=Artifact(tmp_path / "decision"))
    assert capsys.readouterr().out.startswith("grocer ! fail_run | the gate failed")
