"""A failed gate fails the run with the rules that failed."""

import pytest

from components.training.fail_run import fail_run
from grocer.errors import BundleError
from tests.fixtures.artifacts import as_inputs, write_decision


def test_error_lists_the_failed_rules(tmp_path, capsys):
    decision = write_decision(tmp_path / "decision", {}, passed=False)
    with pytest.raises(BundleError, match=r"gate failed.*below 0\.85"):
        fail_run.python_func(**as_inputs({"decision": decision}))
    assert capsys.readouterr().out.startswith("grocer ! fail_run | ")
