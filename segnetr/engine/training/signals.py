"""Handle SIGINT and SIGTERM as requests to stop after the current step."""

import signal
import threading
from types import FrameType
from typing import Literal

StopSignal = Literal["interrupted", "terminated"]


class SignalHandler:
    """Context manager that catches the first SIGINT or SIGTERM; a second one acts as usual.

    Outside the main thread nothing is caught, because Python handles signals in the main thread
    only. A signal that is ignored at the start stays ignored: shells start `segnetr train &` with
    SIGINT ignored, so that Ctrl-C does not stop background jobs.

    Attributes:
        caught: "interrupted" (SIGINT), "terminated" (SIGTERM), or None.
    """

    _MEANING: dict[int, StopSignal] = {  # noqa: RUF012 - a constant
        signal.SIGINT: "interrupted",
        signal.SIGTERM: "terminated",
    }

    def __init__(self) -> None:
        self.caught: StopSignal | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "SignalHandler":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in self._MEANING}
            # None: a handler that was not installed from Python, and cannot be restored.
            self._previous = {
                number: handler
                for number, handler in handlers.items()
                if handler not in (signal.SIG_IGN, None)
            }
            for number in self._previous:
                signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self.caught = self._MEANING[number]
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
