import io

import pytest

from segnetr.progress import LogFile, ObserverGroup, Progress, format_seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def colors(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def show(stream, **options):
    progress = Progress(stream=stream, **options)
    for step in (1, 50, 100):
        progress.on_step(step, 100, {"total": 0.5}, 2.0)
        progress._shown_at = float("-inf")
    progress.on_validation(100, {"dice": 0.75, "loss": 0.25}, best=True)
    progress.on_message("resumed at step 3")
    return stream.getvalue()


def test_pipe_gets_plain_lines_without_control_characters():
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
def test_terminal_gets_a_bar_that_fills_and_colors():
    text = show(Terminal())
    assert "[............" in text
    assert "[############............]" in text
    assert "[########################]" in text
    assert "\x1b[32mvalidation" in text


@pytest.mark.usefixtures("colors")
def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = show(Terminal())
    assert "\x1b[3" not in text
    assert "[############............]" in text


@pytest.mark.usefixtures("colors")
def test_bar_never_breaks_the_line_of_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    Progress(stream=stream).on_step(1, 10, {"total": 0.123456, "other": 5.0}, 3.0)
    assert len(stream.getvalue().removeprefix("\r\x1b[K")) < 30


def test_quiet_shows_nothing():
    stream = io.StringIO()
    assert show(stream, quiet=True) == ""
    with Progress(stream=stream, quiet=True).task("decode", 3) as advance:
        advance(3, 3)
    assert stream.getvalue() == ""


def test_steps_in_a_pipe_are_told_now_and_then_but_the_last_always():
    stream = io.StringIO()
    progress = Progress(stream=stream)
    for step in range(1, 1001):
        progress.on_step(step, 1000, {}, None)
    assert stream.getvalue().splitlines() == ["train 1/1000", "train 1000/1000"]


def test_task_counts_and_closes_with_a_line():
    stream = io.StringIO()
    with Progress(stream=stream).task("decode", 2) as advance:
        for done in (1, 2):
            advance(done, 2)
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("decode 1/2")
    assert lines[1].startswith("decode 2/2")
    assert lines[-1] == "decode 2 in 0:00"


def test_failed_task_does_not_say_that_it_is_done():
    stream = io.StringIO()
    with pytest.raises(KeyError), Progress(stream=stream).task("decode", 2):
        raise KeyError
    assert "decode 2 in" not in stream.getvalue()


def test_log_file_keeps_lines_of_earlier_starts(tmp_path):
    path = tmp_path / "log.txt"
    for text in ("one", "two"):
        ObserverGroup(LogFile(path)).on_message(text)
    LogFile(path).on_step(5, 5, {"total": 0.5}, 2.0)
    LogFile(path).on_validation(5, {"dice": 0.5}, best=False)
    said = [line.split(" ", 1)[1] for line in path.read_text().splitlines()]
    assert said == [
        "one", "two", "step 5/5 total=0.5 2 steps/s", "validation at step 5: dice 0.5000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3723, "1:02:03")]
)
def test_durations_are_read_as_clocks_show_them(seconds, text):
    assert format_seconds(seconds) == text
