"""What a user sees while something long runs: a bar on a terminal, plain lines elsewhere."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TextIO

from segnetr.storage.disk_errors import as_write_error

# Seconds between two drawings of a bar, and between two plain lines.
_REDRAW = 0.1
_LINE = 15.0
_BAR = 24


class TrainingObserver(Protocol):
    """Who wants to know how a training goes."""

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Hear of a step: its number, how many there are, its values, steps a second."""
        ...

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Hear of a validation, and whether it was the best so far."""
        ...

    def on_message(self, text: str) -> None:
        """Hear something that a user should know, in one line."""
        ...


class Progress:
    """Shows progress on a stream.

    Args:
        quiet: Show nothing.
        stream: Where to; None: standard error, so that results on standard output stay clean.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._quiet = quiet
        self._stream = stream if stream is not None else sys.stderr
        self._is_terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._has_color = self._is_terminal and not os.environ.get("NO_COLOR")
        self._shown_at = float("-inf")
        self._has_bar = False

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Show a step, if it is time to."""
        values = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self._advance("train", step, total, rate=rate, suffix=values)

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Show the scores of a validation."""
        self._write_line(describe_validation(step, scores, best=best), color=32 if best else None)

    def on_message(self, text: str) -> None:
        """Show a message."""
        self._write_line(text, color=33)

    @contextlib.contextmanager
    def task(self, label: str, total: int) -> Iterator[Callable[[int, int], None]]:
        """Show the progress of anything that is counted.

        Args:
            label: What is done, one word.
            total: Things to do, for the closing line.

        Yields:
            A function to call with the things done and the things to do.
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
        self._write_line(f"{label} {total} in {format_seconds(time.monotonic() - start)}")

    def _advance(
        self, label: str, done: int, total: int, *, rate: float | None, suffix: str = ""
    ) -> None:
        now = time.monotonic()
        wait = _REDRAW if self._is_terminal else _LINE
        if self._quiet or (done < total and now - self._shown_at < wait):
            return
        self._shown_at = now
        text = f"{label} {done}/{total}"
        if rate:
            text += f"  {rate:.3g}/s  {format_seconds((total - done) / rate)} left"
        if suffix:
            text += f"  {suffix}"
        if self._is_terminal:
            self._draw(text, share=done / total if total else 1.0)
        else:
            self._write_line(text)

    def _draw(self, text: str, *, share: float) -> None:
        full = round(_BAR * min(1.0, share))
        line = f"[{'#' * full}{'.' * (_BAR - full)}] {text}"
        self._stream.write("\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()
        self._has_bar = True

    def _write_line(self, text: str, *, color: int | None = None) -> None:
        if self._quiet:
            return
        if self._has_bar:
            self._stream.write("\r\x1b[K")
            self._has_bar = False
        if color is not None and self._has_color:
            text = f"\x1b[{color}m{text}\x1b[0m"
        self._stream.write(text + "\n")
        self._stream.flush()


class LogFile:
    """Keeps what was said in the run's `log.txt`, with the time.

    Args:
        path: The file; lines are added to it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written_at = float("-inf")

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Write a step now and then."""
        now = time.monotonic()
        if step < total and now - self._written_at < 2 * _LINE:
            return
        self._written_at = now
        values = " ".join(f"{name}={value:.6g}" for name, value in terms.items())
        pace = f" {rate:.3g} steps/s" if rate else ""
        self.on_message(f"step {step}/{total} {values}{pace}")

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
    """Passes everything on to several observers."""

    def __init__(self, *members: TrainingObserver) -> None:
        self._members = members

    def on_step(
        self, step: int, total: int, terms: Mapping[str, float], rate: float | None
    ) -> None:
        """Pass on a step."""
        for member in self._members:
            member.on_step(step, total, terms, rate)

    def on_validation(self, step: int, scores: Mapping[str, float], *, best: bool) -> None:
        """Pass on a validation."""
        for member in self._members:
            member.on_validation(step, scores, best=best)

    def on_message(self, text: str) -> None:
        """Pass on a message."""
        for member in self._members:
            member.on_message(text)


def describe_validation(step: int, scores: Mapping[str, float], *, best: bool) -> str:
    """Give the scores of a validation as a line."""
    values = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
    return f"validation at step {step}: {values}{'  (best so far)' if best else ''}"


def format_seconds(seconds: float) -> str:
    """Give a duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
