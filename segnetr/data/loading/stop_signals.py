"""Keep signals that ask a run to stop away from its worker processes."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = frozenset(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
    if hasattr(signal, name)
)


@contextmanager
def block_stop_signals() -> Iterator[None]:
    """Block these signals while child processes are started, which inherit that.

    systemd, `scancel` and a closed terminal send a signal to the whole process group. A worker that
    it kills would end the run before its state is saved. Workers end with their parent instead.
    A signal that arrives in this process meanwhile takes effect at the end of the block. Does
    nothing on systems without signal masks.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
