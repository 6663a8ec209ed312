"""Handle signals as requests to stop after the current step."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from types import FrameType
from typing import Final, Literal, cast, get_args

StopSignal = Literal["interrupted", "terminated", "hangup", "usr1", "usr2"]
STOP_SIGNALS: Final = cast(tuple[StopSignal, ...], get_args(StopSignal))

# A scheduler may send several signals for one request, such as SIGTERM and then SIGHUP.
_SAME_REQUEST_SECONDS = 2.0


class SignalHandler:
    """Context manager that catches a signal that asks the process to stop.

    SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 are caught. Further signals within two seconds
    belong to the same request. After that, the next signal acts as usual. Under `torchrun`, which
    passes on a signal that the process has received already, all further signals are ignored.

    Outside the main thread nothing is caught, because Python handles signals in the main thread
    only. A signal that is ignored at the start stays ignored: shells start `segnetr train &` with
    SIGINT ignored, so that Ctrl-C does not stop background jobs, and `nohup` ignores SIGHUP.

    Attributes:
        caught: "interrupted" (SIGINT), "terminated" (SIGTERM), "hangup" (SIGHUP), "usr1" (SIGUSR1),
            "usr2" (SIGUSR2), or None.
    """

    _MEANING: Final[Mapping[int, StopSignal]] = {
        int(getattr(signal, name)): meaning
        for name, meaning in zip(
            ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"), STOP_SIGNALS, strict=True
        )
        if hasattr(signal, name)
    }

    def __init__(self) -> None:
        self.caught: StopSignal | None = None
        self._caught_at = 0.0
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
        if self.caught is None:
            self.caught, self._caught_at = self._MEANING[number], time.monotonic()
            return
        is_repeated = time.monotonic() - self._caught_at < _SAME_REQUEST_SECONDS
        if not is_repeated and "TORCHELASTIC_RUN_ID" not in os.environ:
            self._restore()
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
