"""Start the command line so that a signal ends it with one line from the first moment on."""

import os
import signal
import sys
from types import FrameType

_SIGNALS = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")


def main() -> None:
    """Run the command line; the entry point of the package.

    Commands that can save their state catch signals themselves. Outside of that nothing is lost,
    because files are written completely or not at all.
    """
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _exit_at_once)
    try:
        # Imported here, because the imports take longer than everything before them.
        from .main import application

        application()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        raise SystemExit(128 + signal.SIGINT) from None


def _exit_at_once(number: int, _frame: FrameType | None) -> None:
    message = f"error: stopped by {signal.Signals(number).name}\n"
    os.write(2, message.encode())
    os._exit(128 + number)
