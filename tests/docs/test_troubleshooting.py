"""Tests that settings, error classes, gate rules and metrics in the documentation exist."""

import json
import re
from pathlib import Path

import pytest

import grocer.errors
from grocer.artifacts.evaluation import Evaluation
from grocer.config.recipes import recipe
from grocer.config.run import RunConfig
from grocer.config.stages import GatePolicy
from grocer.gate.rules import judge
from tests.docs.documents import PAGES, ROOT, blocks, code, error_statuses, section, table
from tests.fixtures.config_keys import settings

SETTINGS = set(settings(RunConfig))
SECTIONS = json.loads(recipe("tiny").to_json()).keys() - {"recipe"}
GENERATED = ("configuration.md", "licences.md")
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()


def unknown_settings(text: str) -> set[str]:
    """Return the settings in a page that do not exist."""
    spans = [*code(text), *re.findall(r"--set '?([\w.]+)=", "\n".join(blocks(text)))]
    names = {
        match[1] for span in spans if (match := re.match(r"(?:--set )?'?(\w+\.\w+)(?![.\w])", span))
    }
    return {
        name
        for name in names
        if name.partition(".")[0] in SECTIONS
        and name not in SETTINGS
        and not re.search(r"\.(json|html|py|csv|parquet|md)$", name)
    }


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_exist(page: Path) -> None:
    assert unknown_settings(page.read_text()) == set()


def test_unknown_setting_is_found() -> None:
    text = "`gate.min_acuracy=1`, `gate.max_ece`, `train.py`\n\n```\n--set split.tset=1\n```\n"
    assert unknown_settings(text) == {"gate.min_acuracy", "split.tset"}


def test_troubleshooting_covers_every_error_class() -> None:
    named = {name for name in code(TROUBLESHOOTING) if name.endswith("Error")}
    classes = {name for name in vars(grocer.errors) if name.endswith("Error")}
    assert named == classes - {"GrocerError", "StepError"}


def rules(text: str) -> set[str]:
    """Return the ids in the first column of the tables in a text."""
    return {rule for row in table(text) for rule in code(row[0])}


def test_gate_rules_exist() -> None:
    documented = rules(section(METRICS, "## Gate rules"))
    assert documented == {reason.rule for reason in judge("{}", GatePolicy()).reasons}
    assert rules(section(TROUBLESHOOTING, "## The gate fails")) == documented


def test_evaluation_keys_exist() -> None:
    documented = rules(section(METRICS, "## Evaluation"))
    fields = set(Evaluation.model_fields) | set(
        Evaluation.model_json_schema()["$defs"]["SideMetrics"]["properties"]
    )
    assert {key for key in documented if "…" not in key} <= fields


def test_every_status_has_a_row() -> None:
    rows = table(section(TROUBLESHOOTING, "## HTTP errors of the predictor"))
    documented = {int(status) for row in rows for status in row[0].split(", ")}
    assert {400, 429, 503} < error_statuses() <= documented
