"""`grocer run --when` as a user sees it, with a toy domain below the real pipeline.

The champion's bundle and the corrections table are real.
"""

import re
from datetime import datetime, timedelta

import pytest

from grocer.config.recipes import tiny
from grocer.io.atomic import read_json
from tests.fixtures.artifacts import make_bundle
from tests.fixtures.corrections import correction, write_corrections


def champion_with_corrections(toy):
    """Write a champion and a corrections table with one name that it has used and two new ones.

    Returns:
        The champion and the options for both.
    """
    address = str(toy.folder / "corrections")
    bundle = make_bundle(
        toy.folder / "champions", tiny().with_settings([f'data.corrections="{address}"'])
    )
    trained = datetime.fromisoformat(bundle.manifest.build.started)
    for names, days in ((["Milk"], -1), (["Tea", "Rye"], 1)):
        rows = [correction(name, "produce") for name in names]
        write_corrections(address, *rows, now=trained + timedelta(days=days))
    return bundle, ("--champion", str(bundle.path), "--corrections", address)


def table(output):
    """Return value, limit and met of each condition in the output of check_due."""
    lines = [
        line.split("check_due ", 1)[1].strip()
        for line in output.splitlines()
        if "check_due" in line
    ]
    rows = [re.split(" {2,}", line) for line in lines]
    return {row[0]: tuple(row[1:]) for row in rows if len(row) == 4}


def test_nothing_runs_unless_a_condition_is_met(toy):
    _, options = champion_with_corrections(toy)
    ended = toy.run("--when", "3 corrections or 30d", *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    rows = table(ended.stdout)
    assert rows["3 corrections"][0].startswith("2 since")
    assert rows["3 corrections"][1:] == ("3", "no")
    assert rows["30d"] == ("0.0 days", "30 days", "no")
    assert "✓ check_due" in ended.stdout
    assert "ingest" not in ended.stdout
    assert toy.outputs() == {"champions", "corrections"}

    ended = toy.run("--when", "2 corrections or 30d", *options)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert table(ended.stdout)["2 corrections"][2] == "yes"
    steps = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("✓")]
    assert (steps[:2], steps[-1]) == (["check_due", "ingest"], "deploy")
    assert list((toy.out / "bundle").iterdir())


def test_champion_survives_a_worse_challenger_which_is_not_trained_again_at_once(toy):
    champion, options = champion_with_corrections(toy)
    ended = toy.run("--when", "2 corrections", *options, evaluate="lose")
    assert (ended.returncode, ended.stderr) == (3, "")
    summary = read_json(toy.out / "summary.json")
    failed = [reason["rule"] for reason in summary["gate"]["reasons"] if not reason["passed"]]
    assert (failed, summary["bundle"]) == (["champion"], None)
    champion.require_unchanged()

    again = ("--when", "2 corrections", "--replace", *options)
    ended = toy.run(*again)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert table(ended.stdout)["2 corrections"][2] == "yes"
    value, *rest = table(ended.stdout)["cool-down over"]
    assert ("(failed)" in value, rest) == (True, ["7 days", "no"])
    assert read_json(toy.out / "summary.json") == summary

    ended = toy.run(*again, "--cool-down", "0", ingest="user error")
    assert (ended.returncode, "✗ ingest" in ended.stdout) == (2, True)


@pytest.mark.parametrize(
    "options",
    [("--when", "weekly"), ("--when", "drift"), ("--when", "5 corrections"), ("--metrics", "x")],
)
def test_invalid_trigger_is_reported_before_anything_runs(tmp_path, user_error, options):
    out = tmp_path / "out"
    assert options[0] in user_error("run", "--data", str(tmp_path), "--out", str(out), *options)
    assert not out.exists()
