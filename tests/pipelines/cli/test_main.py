"""The command line: exit codes, and one line on stderr for each mistake."""

import subprocess
import sys

import pytest

from grocer import __version__
from pipelines.cli.main import execute


def told(capsys, *arguments):
    """Exit code and stderr's only line."""
    code = execute(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("grocer: ")
    return code, line.removeprefix("grocer: ")


def test_version(capsys):
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"grocer {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Missing command; see grocer --help"),
        (["frobnicate"], "No such command 'frobnicate'; see grocer --help"),
        (["run", "--data", "x"], "Missing option '--out'; see grocer run --help"),
        (["run", "--data", "x", "--out", "o", "--fast"], "No such option: --fast"),
        (["serve", "--bundle", "b", "--port", "http"], "Invalid value for '--port'"),
        (["run", "--data", "absent", "--out", "o"], "--data absent: there is no such file"),
        (["run", "--data", ".", "--out", "o", "--champion", "b"], "b is no bundle: it has no bun"),
        (["compile", "x.yaml", "--recipe", "tinny"], "--recipe tinny: no such recipe; did you me"),
    ],
)
def test_a_mistake_is_one_line(capsys, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    code, said = told(capsys, *arguments)
    assert code == 2
    assert said.startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("gate.min_acuracy=0.9", "--set gate.min_acuracy: no such key; gate has baselines"),
        ("gate.min_accuracy=high", "gate.min_accuracy: Input should be a valid number"),
        ("gate.min_accuracy=1.5", "gate.min_accuracy: Input should be less than or equal to 1"),
        ("gate.min_accuracy", "--set gate.min_accuracy: expected section.key=value"),
        ("split.test=0.49", "configuration: Value error, split.validation + split.test leave"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_starts(capsys, tmp_path, setting, line):
    options = ["--set", setting, "--set", "split.validation=0.45"]
    out = tmp_path / "out"
    code, said = told(capsys, "run", "--data", str(tmp_path), "--out", str(out), *options)
    assert code == 2
    assert said.startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_help_comes_without_the_frameworks():
    code = "import sys, pipelines.cli.main as c; c.execute(['--help']); print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(told.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint({"torch", "kfp", "kserve", "pandas", "transformers"})


def test_a_reader_that_leaves_early_is_no_bug():
    code = "import pipelines.cli.main as c; raise SystemExit(c.execute(['run', '--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
