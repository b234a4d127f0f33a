"""Help, documentation and shell completion agree with the commands.

Command lines in the documentation are parsed by the application. In a code block they must be
complete, except for a `...`; inside a sentence their commands and options must exist.
"""

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from grocer.config.recipes import RECIPES
from pipelines.cli.docs import reference
from pipelines.cli.main import app, execute
from tests.docs.documents import FENCED, PAGES, ROOT, code

GROCER = typer.main.get_command(app)
UsageError = typer.BadParameter.__base__

SHELL = ("", "sh", "bash", "shell", "console")
# Where a shell expects a command, after its environment variables; not a log line of a step.
COMMAND = re.compile(r"(?:^|[|;&(])\s*\$?\s*(?:\w+=\S*\s+)*(?:\S*/)?grocer\s+(?![|!])(.*)")
END = ("|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", ")")


def commands(group=GROCER, path=()):
    """Yield each command that is not a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())
NAMES = [" ".join(words) for words in COMMANDS]


def command_lines(text):
    """Yield the words after `grocer` of each command line, and whether it must be complete."""
    for language, body in FENCED.findall(text):
        if language.strip() in SHELL:
            for line in body.replace("\\\n", " ").splitlines():
                if match := COMMAND.search(line):
                    yield words(match[1]), True
    for span in code(text):
        if match := COMMAND.match(span):
            yield words(match[1]), False


def words(line):
    """Return the words of one command, without the brackets around optional parts."""
    split = shlex.split(line.replace("[--", "--"), comments=True)
    ends = [i for i, word in enumerate(split) if word in END]
    return [word.rstrip("]") for word in split[: min(ends, default=None)]]


def error_in(line, complete):
    """Return what is wrong with a command line, or None."""
    if not complete or any(word in ("...", "…") for word in line):
        line = [word for word in line if word not in ("...", "…")]
        return unknown(line)
    try:
        context = GROCER.make_context("grocer", list(line))
        _, command, rest = GROCER.resolve_command(context, context._protected_args + context.args)
        while hasattr(command, "commands"):
            context = command.make_context(command.name, rest, parent=context)
            _, command, rest = command.resolve_command(
                context, context._protected_args + context.args
            )
        command.make_context(command.name, rest, parent=context)
    except typer.Exit:  # --help or --version
        return None
    except UsageError as error:
        return error.format_message()
    return None


def unknown(line):
    """Return the unknown command or option of an incomplete command line, or None."""
    command, rest = GROCER, list(line)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f"No such command '{name}'"
        command = command.commands[name]
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    options |= {"-h", "--help"}
    used = [word.partition("=")[0] for word in rest if word.startswith("-")]
    wrong = [word for word in used if word not in options]
    return f"No such option: {wrong[0]}" if wrong else None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_command_lines_in_the_documentation_are_valid(page):
    results = [
        (line, error_in(line, complete)) for line, complete in command_lines(page.read_text())
    ]
    assert [f"grocer {shlex.join(line)}: {error}" for line, error in results if error] == []


def test_command_lines_are_found_in_the_documentation():
    lines = [line for page in PAGES for line, _ in command_lines(page.read_text())]
    assert len(lines) > 20
    assert {line[0] for line in lines if line} >= {"run", "serve", "classify", "submit"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("```\n.venv/bin/grocer run --data x --out y\n```", None),
        ("```\n.venv/bin/grocer rum --data x --out y\n```", "No such command 'rum'"),
        ("```\ngrocer run --data x --ouut y\n```", "No such option: --ouut"),
        ("```\ngrocer run --data x\n```", "Missing option '--out'"),
        ("```\ngrocer run --data x ...\n```", None),
        ("```\ngrocer run --dada x ...\n```", "No such option: --dada"),
        ("```\ngrocer run --data x \\\n    --nout y\n```", "No such option: --nout"),
        ("```\ngrocer serve --bundle b --port http &\n```", "Invalid value for '--port'"),
        ("```\nX=1 grocer classify in.csv --bundle b > log\n```", "Missing argument 'OUT'"),
        ("```\necho a && grocer bulk submti\n```", "No such command 'submti'"),
        ("```\n$(grocer promote --sett a=b)\n```", "No such option: --sett"),
        ("```console\n$ grocer --verzion\n```", "No such option: --verzion"),
        ("```\ngrocer run --data x --out y [--recipe tiny] [--set a.b=c ...]\n```", None),
        ("```\ngrocer run --data x --out y [--recipy tiny]\n```", "No such option: --recipy"),
        ("It is `grocer submit` that follows.", None),
        ("It is `grocer submit --hots URL`.", "No such option: --hots"),
        ("It is `grocer sumbit`.", "No such command 'sumbit'"),
    ],
)
def test_invalid_command_line_is_found(text, error):
    ((line, complete),) = command_lines(text)
    found = error_in(line, complete)
    assert found is None if error is None else found.startswith(error), found


@pytest.mark.parametrize(
    "text",
    [
        "```json\n{grocer rum}\n```",
        "```\nkubectl -n grocer get inferenceservice grocer -o json\n```",
        "```\ngrocer | train | 40/320\ngrocer: --data x: nothing is there\n```",
        "```\ngrocer/       the domain\n```",
        "The `grocer-pipeline` account.",
    ],
)
def test_other_text_is_not_a_command_line(text):
    assert list(command_lines(text)) == []


def test_reference_is_current():
    """`make docs` generates it."""
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == reference()


def test_reference_has_every_command_and_exit_code():
    text = reference()
    for name in NAMES:
        assert f"## grocer {name}\n" in text
    (codes,) = re.findall(r"Exit codes: (.+)\.", text)
    assert [part.split()[0] for part in codes.split("; ")] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_parameters_have_help(name):
    command = COMMANDS[tuple(name.split())]
    first = command.help.partition("\n")[0]
    assert first[0].isupper()
    assert first.endswith(".")
    for each in command.params:
        assert each.help, f"{each.name} has no help"
        assert each.help[0].isupper()
        assert not each.help.endswith("."), f"{each.name} ends with a full stop"
        if each.param_type_name == "argument" or not each.is_flag:
            assert each.metavar, f"{each.name} has no metavar"


@pytest.mark.parametrize("group", ["", "bulk"])
def test_list_of_commands_is_not_truncated(capsys, monkeypatch, group):
    monkeypatch.setenv("COLUMNS", "80")
    execute([*group.split(), "--help"])
    _, _, listed = capsys.readouterr().out.partition("Commands:\n")
    lines = listed.partition("\n\n")[0].splitlines()
    assert len(lines) > 2
    assert all(line.endswith(".") and not line.endswith("...") for line in lines)


@pytest.fixture
def shell(tmp_path):
    """Run a script in bash with an empty home, where `grocer` is this code."""
    program = tmp_path / "bin" / "grocer"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipelines.cli.main "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }

    def run(script):
        command = ["bash", "--norc", "-c", script + "\n:"]
        ended = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert ended.stderr == ""
        return ended.stdout.splitlines()

    return run


COMPLETE = """
complete_line() {
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
    "$(complete -p grocer | sed 's/.* -F \\([^ ]*\\) .*/\\1/')" "$1"
    echo "${COMPREPLY[*]}"
}
"""


def test_bash_completes_with_the_sourced_script(shell):
    assert shell(
        'eval "$(grocer --show-completion)"\n'
        + COMPLETE
        + """
        complete_line grocer bulk s
        complete_line grocer run --set gate.min_acc
        """
    ) == ["submit schedule", "gate.min_accuracy="]


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("grocer se", ["serve"]),
        ("grocer run --rec", ["--recipe"]),
        ("grocer run --recipe ", list(RECIPES)),
        ("grocer run --recipe l", ["llama2-7b-t4", "llama2-70b-fsdp"]),
        ("grocer serve --set token", ["token_budget="]),
        ("grocer promote --set deploy.na", ["deploy.namespace=", "deploy.name="]),
        ("grocer doctor --sto", ["--store"]),
        ("grocer serve --bundle /tm", []),  # so that the shell completes the path
    ],
)
def test_completion(monkeypatch, capsys, line, completed):
    monkeypatch.setenv("_GROCER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
    with pytest.raises(SystemExit):
        execute([])
    assert capsys.readouterr().out.split() == completed


def test_installed_completion_works_in_the_next_shell(shell):
    assert shell("grocer --install-completion")[0].startswith("bash completion installed in ")
    assert shell(f"source ~/.bashrc\n{COMPLETE}\ncomplete_line grocer prom") == ["promote"]
