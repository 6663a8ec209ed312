"""SIGINT and SIGTERM as a wish to stop, not as an end in the middle of a step."""

import signal
import threading
from types import FrameType
from typing import Literal

StopSignal = Literal["interrupted", "terminated"]


class Interrupts:
    """Catches the first SIGINT or SIGTERM; a second one acts as usual.

    Outside the main thread, where Python has no signals, nothing is caught.

    Attributes:
        caught: "interrupted" (SIGINT), "terminated" (SIGTERM), or None.
    """

    _MEANING: dict[int, StopSignal] = {  # noqa: RUF012 - a constant
        signal.SIGINT: "interrupted",
        signal.SIGTERM: "terminated",
    }

    def __init__(self) -> None:
        self.caught: StopSignal | None = None
        self._former: dict[int, object] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.getsignal(number) for number in self._MEANING}
            for number in self._MEANING:
                signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _catch(self, number: int, _frame: FrameType | None) -> None:
        self.caught = self._MEANING[number]
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._former = {}
