"""Protects the strict end of a run: a no of the gate fails it, in the gate's own words."""

import pytest

from components.fail_run import fail_run
from grocer.errors import BundleError
from grocer.io.atomic import write_json


class Artifact:
    def __init__(self, path):
        self.path = str(path)


def test_a_no_ends_with_the_rules_that_were_not_met(tmp_path, capsys):
    reasons = [
        {"rule": "accuracy", "passed": False, "sentence": "Test accuracy is at least 0.7."},
        {"rule": "gap", "passed": True, "sentence": "The gap is small."},
    ]
    write_json(tmp_path / "decision.json", {"passed": False, "reasons": reasons})
    with pytest.raises(BundleError, match=r"the gate said no.*at least 0\.7"):
        fail_run.python_func(decision=Artifact(tmp_path))
    assert capsys.readouterr().out.startswith("grocer ! fail_run | the gate said no")
