"""SIGINT and SIGTERM as a wish to stop, not as an end in the middle of a step."""

import signal
import threading
from types import FrameType
from typing import Literal

StopSignal = Literal["interrupted", "terminated"]


class SignalHandler:
    """Catches the first SIGINT or SIGTERM; a second one acts as usual.

    Outside the main thread, where Python has no signals, nothing is caught. A signal that was
    ignored where the program was started stays ignored: a script's shell starts `segnetr train &`
    so, that an interrupt from the keyboard ends what is in front and not what was put behind it.

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

    def __enter__(self) -> "SignalHandler":
        if threading.current_thread() is threading.main_thread():
            handlers = {number: signal.getsignal(number) for number in self._MEANING}
            # None: a handler that is not Python's, and that Python could not put back.
            self._former = {
                number: handler
                for number, handler in handlers.items()
                if handler not in (signal.SIG_IGN, None)
            }
            for number in self._former:
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
