"""Test the progress display on a terminal, in a pipe and in the log of a run."""

import io
import re
import subprocess
import sys

import pytest

from segnetr.progress import LogFile, ObserverGroup, Progress, format_seconds


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def colors(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def strip_codes(text):
    """Remove the control codes of a terminal."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def show(stream, **options):
    """Show three steps, a validation and a message."""
    progress = Progress(stream=stream, **options)
    for step in (1, 50, 100):
        progress.on_step(step, 100, {"total": 0.5}, 2.0)
        progress._shown_at = float("-inf")
    progress.on_validation(100, {"dice": 0.75, "loss": 0.25}, best=True)
    progress.on_message("resumed at step 3")
    return stream.getvalue()


def test_pipe_receives_plain_lines_without_control_characters():
    text = show(io.StringIO())
    assert "\r" not in text
    assert "\x1b" not in text
    assert text.splitlines() == [
        "train 1/100  2/s  0:50 left  total 0.5",
        "train 50/100  2/s  0:25 left  total 0.5",
        "train 100/100  2/s  0:00 left  total 0.5",
        "validation at step 100: dice 0.7500  loss 0.2500  (best so far)",
        "resumed at step 3",
    ]


@pytest.mark.usefixtures("colors")
def test_bar_on_a_terminal_fills_and_has_colors():
    text = show(Terminal())
    bars = re.findall(r"(\x1b\[38[^m]*m[━╸]+|)\x1b\[[^m]*m[━╺]*\x1b\[0m train", text)
    assert bars
    assert "━" * 24 in strip_codes(text)
    assert "train 50/100  2/s  0:25 left  total 0.5" in strip_codes(text)
    assert "\x1b[32mvalidation" in text
    assert "\x1b[33mresumed" in text


@pytest.mark.usefixtures("colors")
def test_no_color_disables_the_colors_of_the_bar(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = show(Terminal())
    assert "\x1b[3" not in text
    lines = [line for line in re.split(r"[\r\n]+", strip_codes(text)) if "train" in line]
    filled = [line.partition(" train")[0].count("━") for line in lines]
    assert filled == sorted(filled)
    assert (filled[0], filled[-1]) == (0, 24)
    assert 12 in filled


@pytest.mark.usefixtures("colors")
def test_bar_fits_on_one_line_of_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    Progress(stream=stream).on_step(1, 10, {"total": 0.123456, "other": 5.0}, 3.0)
    text = strip_codes(stream.getvalue())
    assert "train" in text
    assert max(map(len, re.split(r"[\r\n]+", text))) <= 30
    assert "\n" not in text.strip()


@pytest.mark.usefixtures("colors")
def test_long_messages_and_brackets_are_printed_verbatim():
    stream = Terminal()
    message = "[bold]" + "/long/path" * 30
    Progress(stream=stream).on_message(message)
    assert strip_codes(stream.getvalue()) == message + "\n"


@pytest.mark.usefixtures("colors")
def test_cursor_is_restored_after_a_failed_task():
    stream = Terminal()

    def fail():
        with Progress(stream=stream).task("decode", 2) as advance:
            advance(1, 2)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l") > -1


def test_rich_is_not_imported_in_a_pipe():
    code = (
        "import io, sys; from segnetr.progress import Progress\n"
        "Progress(stream=io.StringIO()).on_message('text')\n"
        "sys.exit('rich' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_quiet_prints_nothing():
    stream = io.StringIO()
    assert show(stream, quiet=True) == ""
    with Progress(stream=stream, quiet=True).task("decode", 3) as advance:
        advance(3, 3)
    assert stream.getvalue() == ""


def test_steps_in_a_pipe_are_printed_at_intervals_and_the_last_step_always():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    for step in range(1, 1001):
        progress.on_step(step, 1000, {}, None)
    assert stream.getvalue().splitlines() == ["train 1/1000", "train 1000/1000"]


def test_task_prints_its_counts_and_a_last_line():
    stream = io.StringIO()
    with Progress(stream=stream).task("decode", 2) as advance:
        for done in (1, 2):
            advance(done, 2)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("decode 1/2")
    assert lines[1].startswith("decode 2/2")
    assert lines[-1] == "decode 2 in 0:00"


def test_failed_task_prints_no_last_line():
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress(stream=stream).task("decode", 2):
        raise KeyError
    assert "decode 2 in" not in stream.getvalue()


def test_log_file_appends_to_the_lines_of_earlier_runs(tmp_path):
    path = tmp_path / "log.txt"
    for text in ("one", "two"):
        ObserverGroup(LogFile(path)).on_message(text)
    LogFile(path).on_step(5, 5, {"total": 0.5}, 2.0)
    LogFile(path).on_validation(5, {"dice": 0.5}, best=False)
    lines = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert lines == [
        "one", "two", "step 5/5 total=0.5 2 steps/s", "validation at step 5: dice 0.5000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")]
)
def test_durations_are_formatted_as_hours_minutes_and_seconds(seconds, text):
    assert format_seconds(seconds) == text
