"""Progress of long commands: a bar drawn by rich on a terminal, plain lines elsewhere."""

import atexit
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from segnetr.storage.disk_errors import as_write_error

if TYPE_CHECKING:
    from rich.console import Console

# Seconds between two updates of a bar, and between two plain lines.
_REDRAW = 0.1
_LINE = 15.0
_BAR_WIDTH = 24


class TrainingObserver(Protocol):
    """Receives the events of a training."""

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Receive a step: its number, the number of steps, its values, steps per second."""
        ...

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Receive the scores of a validation, and whether it is the best so far."""
        ...

    def on_message(self, text: str) -> None:
        """Receive a message for the user, one line."""
        ...


class Progress:
    """Shows progress on a stream.

    Colors are used on a terminal only, unless `NO_COLOR` is set.

    Args:
        quiet: Show nothing.
        stream: The output; None: standard error, so that standard output contains results only.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream if stream is not None else sys.stderr
        is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._terminal = _Terminal(self._stream) if is_terminal else None
        self._shown_at = float("-inf")

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Show a step, unless another one was shown a moment before."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self._advance("train", step, total, rate=rate, suffix=values)

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Show the scores of a validation."""
        text = describe_validation(step, scores, best=best)
        self._write_line(text, color="green" if best else None)

    def on_message(self, text: str) -> None:
        """Show a message."""
        self._write_line(text, color="yellow")

    @contextlib.contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show the progress of a task with countable items.

        Args:
            label: Name of the task, one word.
            total: Number of items, for the last line.

        Yields:
            A function to call with the number of finished items and the number of items.
        """
        start = time.monotonic()
        self._shown_at = float("-inf")

        def advance(done: int, todo: int) -> None:
            passed = time.monotonic() - start
            self._advance(label, done, todo, rate=done / passed if passed > 0 else None)

        try:
            yield advance
        finally:
            self._shown_at = float("-inf")
            if self._terminal is not None:
                self._terminal.remove_bar()
        self._write_line(f"{label} {total} in {format_seconds(time.monotonic() - start)}")

    def _advance(
        self, label: str, done: int, total: int, *, rate: float | None, suffix: str = ""
    ) -> None:
        now = time.monotonic()
        wait = _LINE if self._terminal is None else _REDRAW
        if self._quiet or (done < total and now - self._shown_at < wait):
            return
        self._shown_at = now
        text = f"{label} {done}/{total}"
        if rate:
            text += f"  {rate:.3g}/s  {format_seconds((total - done) / rate)} left"
        if suffix:
            text += f"  {suffix}"
        if self._terminal is None:
            self._write_line(text)
        else:
            self._terminal.draw_bar(text, share=done / total if total else 1.0)

    def _write_line(self, text: str, *, color: str | None = None) -> None:
        if self._quiet:
            return
        if self._terminal is None:
            self._stream.write(text + "\n")
            self._stream.flush()
        else:
            self._terminal.write_line(text, color=color)


class _Terminal:
    """A terminal with lines, and at most one bar below them.

    rich is imported at the first output, because a command that shows nothing should start fast.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console: Console | None = None
        self._update_bar: Callable[[str, float], None] | None = None
        self._stop_bar: Callable[[], None] | None = None

    def draw_bar(self, text: str, *, share: float) -> None:
        """Draw or update the bar; `share` is its filled part, 0 to 1."""
        if self._update_bar is None:
            self._start_bar()
        assert self._update_bar is not None
        self._update_bar(text, min(1.0, share))

    def write_line(self, text: str, *, color: str | None) -> None:
        """Write a line in place of the bar."""
        from rich.text import Text

        self.remove_bar()
        self._open().print(Text(text, style=color or ""), soft_wrap=True)

    def remove_bar(self) -> None:
        """Erase the bar."""
        if self._stop_bar is not None:
            atexit.unregister(self._stop_bar)
            self._stop_bar()
        self._update_bar = self._stop_bar = None

    def _open(self) -> "Console":
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._stream, highlight=False)
        return self._console

    def _start_bar(self) -> None:
        from rich.markup import escape
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        bars = Bars(
            BarColumn(bar_width=_BAR_WIDTH),
            TextColumn("{task.description}"),
            console=self._open(),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            # Warnings and errors that are printed meanwhile appear above the bar.
            redirect_stderr=self._stream is sys.stderr,
        )
        bar = bars.add_task("", total=1.0)
        bars.start()

        def update(text: str, share: float) -> None:
            bars.update(bar, completed=share, description=escape(text), refresh=True)

        self._update_bar, self._stop_bar = update, bars.stop
        # Shows the cursor again after an error.
        atexit.register(bars.stop)


class LogFile:
    """Appends the events of a training to the `log.txt` of a run, with the time.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = float("-inf")

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Write a step, at most every 30 seconds."""
        now = time.monotonic()
        if step < total and now - self._written_at < 2 * _LINE:
            return
        self._written_at = now
        values = " ".join(f"{name}={value:.6g}" for name, value in terms.items())
        speed = f" {rate:.3g} steps/s" if rate else ""
        self.on_message(f"step {step}/{total} {values}{speed}")

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Write the scores of a validation."""
        self.on_message(describe_validation(step, scores, best=best))

    def on_message(self, text: str) -> None:
        """Write a line.

        Raises:
            WriteError: If it cannot be written.
        """
        stamp = datetime.now(tz=UTC).isoformat(timespec="seconds")
        with as_write_error(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {text}\n")


class ObserverGroup:
    """Forwards all events to several observers."""

    def __init__(self, *members: TrainingObserver) -> None:
        self._members = members

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Forward a step."""
        for member in self._members:
            member.on_step(step, total, terms, rate)

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Forward a validation."""
        for member in self._members:
            member.on_validation(step, scores, best=best)

    def on_message(self, text: str) -> None:
        """Forward a message."""
        for member in self._members:
            member.on_message(text)


def describe_validation(step: int, scores: Mapping[str, float], *, best: bool) -> str:
    """Return the scores of a validation as one line."""
    values = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    return f"validation at step {step}: {values}{'  (best so far)' if best else ''}"


def format_seconds(seconds: float) -> str:
    """Return a duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
