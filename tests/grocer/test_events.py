"""Events reach the reader complete, in order, and never as something else."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grocer.events import PREFIX, VARIABLE, Event, EventFile, Reason, emit, parse, split_log


def test_events_are_read_once_and_in_order(events: EventFile) -> None:
    assert events.read() == []
    emit("train", "started")
    emit("train", "progress", text="1/2 steps", done=1, total=2)
    started, progress = events.read()
    assert (started.event, started.step) == ("started", "train")
    assert (progress.text, progress.done, progress.total) == ("1/2 steps", 1, 2)
    emit("train", "succeeded", seconds=1.5)
    (succeeded,) = events.read()
    assert succeeded.seconds == 1.5
    assert started.time <= succeeded.time
    assert events.read() == []


def test_event_has_only_its_own_fields(events: EventFile) -> None:
    emit("train", "message", text="fp16")
    content = json.loads(events.path.read_text())
    assert content.pop("time") > 1e9
    assert content == {"event": "message", "step": "train", "text": "fp16"}


def test_verdict_keeps_its_reasons(events: EventFile) -> None:
    reasons = (Reason(rule="accuracy", passed=False, sentence="Test accuracy is 0.7."),)
    emit("gate", "verdict", passed=False, reasons=reasons)
    (verdict,) = events.read()
    assert (verdict.passed, verdict.reasons) == (False, reasons)


def test_incomplete_last_line_is_left_until_it_is_complete(events: EventFile) -> None:
    emit("ingest", "started")
    line = json.dumps({"event": "succeeded", "step": "ingest", "time": 1.0})
    with events.path.open("a") as writer:
        writer.write(line[:20])
        writer.flush()
        assert [event.event for event in events.read()] == ["started"]
        assert events.read() == []
        writer.write(f"{line[20:]}\n")
        writer.flush()
    assert [event.event for event in events.read()] == ["succeeded"]


def test_line_that_was_never_completed_is_skipped(events: EventFile) -> None:
    events.path.write_text('{"event": "succeeded", "st')
    emit("train", "started")
    assert [event.event for event in events.read()] == ["started"]


def test_processes_write_to_one_file(events: EventFile) -> None:
    code = "import sys; from grocer.events import emit\n"
    code += "for n in range(300): emit(sys.argv[1], 'message', text='x' * 500, done=n)"
    writers = [subprocess.Popen([sys.executable, "-c", code, name]) for name in ("a", "b")]
    assert [writer.wait() for writer in writers] == [0, 0]
    read = events.read()
    for name in ("a", "b"):
        assert [event.done for event in read if event.step == name] == list(range(300))


def test_pod_prints_each_event_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE)
    emit("train", "message", text="é\u2028")
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(PREFIX)
    event = parse(line.removeprefix(PREFIX))
    assert (event.step, event.text) == ("train", "é\u2028")


def test_log_is_split_into_events_and_output() -> None:
    started = Event(event="started", step="train").model_dump_json()
    log = f"a framework's line\n 5%|#   |{PREFIX}{started}\n\n{PREFIX}{{torn\nlast"
    reported, output = split_log(log)
    assert [event.event for event in reported] == ["started"]
    assert output == ["a framework's line", f"{PREFIX}{{torn", "last"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"event": "succeeded"}',
        '{"event": "finished", "step": "train"}',
        '{"event": "succeeded", "step": "train", "seconds": NaN}',
        '{"event": "succeeded", "step": "train", "seconds": "soon"}',
        '{"event": "verdict", "step": "gate", "passed": true, "reasons": [{}]}',
    ],
)
def test_invalid_event_is_not_read(content: str) -> None:
    assert parse(content) is None


def test_verdict_without_a_value_has_not_passed() -> None:
    event = parse('{"event": "verdict", "step": "gate"}')
    assert event.passed is False


@given(st.text())
def test_any_text_is_a_valid_log(text: str) -> None:
    split_log(text)
    parse(text)


@given(st.text(st.characters(codec="utf-8")))
def test_any_message_is_read_as_written(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv(VARIABLE, f"{folder}/events.jsonl")
        emit("train", "message", text=text)
        (event,) = EventFile(Path(folder, "events.jsonl")).read()
    assert event.text == text


def test_file_that_cannot_be_written_does_not_fail_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path, tmp_path / "missing" / "events.jsonl", Path("/dev/full")):
        monkeypatch.setenv(VARIABLE, str(path))
        emit("train", "message", text="fp16")
