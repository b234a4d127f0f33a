"""The command line: exit codes, and one line on stderr for a user error."""

import subprocess
import sys

import pytest

from grocer import __version__
from pipelines.cli.main import execute


def test_version(capsys):
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"grocer {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "Missing command; see grocer --help"),
        (["frobnicate"], "No such command 'frobnicate'; see grocer --help"),
        (["run", "--data", "x"], "Missing option '--out'; see grocer run --help"),
        (["run", "--data"], "Option '--data' requires an argument; see grocer run --help"),
        (
            ["review", "import", "x", "--run"],
            "Option '--run' requires an argument; see grocer review import --help",
        ),
        (["run", "--data", "x", "--out", "o", "--fast"], "No such option: --fast"),
        (["serve", "--bundle", "b", "--port", "http"], "Invalid value for '--port'"),
        (["run", "--data", "absent", "--out", "o"], "--data absent: no such file or directory"),
        (["run", "--data", ".", "--out", "o", "--champion", "b"], "b"),
        (["run", "--data", ".", "--out", "o", "--corrections", "c"], "--corrections c: no such"),
        (["run", "--data", ".", "--out", "o", "--set", "train.nodes=2"], "train.nodes=2: this is"),
        (
            ["run", "--data", ".", "--out", "o", "--set", "deploy.signing_key=absent.pem"],
            "deploy.signing_key: absent.pem: no such file",
        ),
        (["compile", "x.yaml", "--recipe", "tinny"], "--recipe tinny"),
        (
            ["review", "export", "q", "--run", "r", "--format", "x"],
            "Invalid value for '--format': 'x'",
        ),
        (["verify", "a\x1b]0;b\x07"], "a?]0;b? is not a bundle"),
    ],
)
def test_user_error_is_one_line(user_error, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    assert user_error(*arguments).startswith(line)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("gate.min_acuracy=0.9", "--set gate.min_acuracy"),
        ("gate.min_accuracy=high", "gate.min_accuracy: "),
        ("gate.min_accuracy=1.5", "gate.min_accuracy: "),
        ("gate.min_accuracy", "--set gate.min_accuracy: "),
        ("split.test=0.49", "split.validation + split.test "),
    ],
)
def test_invalid_setting_is_rejected_before_the_run(user_error, tmp_path, setting, line):
    options = ["--set", setting, "--set", "split.validation=0.45", "--out", str(tmp_path / "out")]
    assert user_error("run", "--data", str(tmp_path), *options).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_help_and_doctor_do_not_import_the_frameworks():
    code = "import sys, pipelines.cli.main as c, pipelines.doctor.cluster, pipelines.doctor.store; "
    code += "c.execute(['--help']); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ended.stdout.splitlines()[-1].split())
    assert loaded.isdisjoint(
        {"torch", "kfp", "kserve", "kubernetes", "pandas", "requests", "transformers"}
    )


@pytest.mark.parametrize(
    ("arguments", "exit_code", "line"),
    [
        (["--version"], 0, f"grocer {__version__}\n"),
        (["compile", "out.yaml"], 2, "grocer: the module kfp is not installed; "),
    ],
)
def test_package_without_extras(arguments, exit_code, line):
    code = "import sys; sys.modules.update(kfp=None, yaml=None); import pipelines.cli.main as c; "
    code += f"raise SystemExit(c.execute({arguments}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == exit_code
    assert (ended.stdout + ended.stderr).startswith(line)
    assert "Traceback" not in ended.stderr


def test_missing_module_of_grocer_is_an_internal_error(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pipelines.kubeflow.training", None)
    with pytest.raises(ModuleNotFoundError):
        execute(["compile", str(tmp_path / "out.yaml")])


def test_closed_pipe_is_not_an_internal_error():
    code = "import pipelines.cli.main as c; raise SystemExit(c.execute(['run', '--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    assert "Traceback" not in process.stderr.read()
    process.wait()
