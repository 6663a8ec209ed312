"""Lock a folder for one process.

The lock is an advisory `flock` on a file in the folder. The system releases it when the process
ends in any way, so a lock never has to be removed by hand. On network file systems its effect
depends on the file system and its mount options: NFS from version 4 on and Lustre with `flock`
lock for all hosts, Lustre with `localflock` for one host only, and some accept every lock. There,
two hosts can still write to one folder.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from segnetr.errors import UsageError
from segnetr.storage.disk_errors import as_write_error

with contextlib.suppress(ImportError):  # Windows has none
    import fcntl

LOCK_NAME = ".segnetr.lock"


@contextlib.contextmanager
def lock_folder(
    folder: Path,
    *,
    name: str = LOCK_NAME,
    on_message: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Keep other processes out of a folder.

    The folder is created if it is missing, and removed again if nothing was written to it.

    Args:
        folder: The folder.
        name: File name of the lock. Locks of different names do not exclude each other.
        on_message: Receives one line if the lock of a process that has ended is taken over.

    Raises:
        UsageError: If another process has the lock. The message names host and process.
        WriteError: If the folder or the file cannot be written.
    """
    if "fcntl" not in globals():
        yield
        return
    is_new = not folder.exists()
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_locked(folder / name)
    try:
        holder = _read_holder(descriptor)
        if holder and on_message is not None:
            on_message(f"took over the lock of {_describe(holder)}, which has ended")
        _write_holder(descriptor)
        yield
    finally:
        # Removed before it is released: whoever waits for this file tries again with a new one.
        with contextlib.suppress(OSError):
            (folder / name).unlink()
        os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only if it is empty


def reject_locked(path: Path) -> None:
    """Check that no other process has a lock.

    Args:
        path: The file of the lock. It may be missing.

    Raises:
        UsageError: If another process has the lock. The message names host and process.
    """
    if "fcntl" not in globals():
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path, descriptor) from None
    except OSError:
        pass  # the file system has no locks
    finally:
        os.close(descriptor)


def _open_locked(path: Path) -> int:
    """Open and lock a file; try again if its last holder removed it in the meantime."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            error = _in_use(path, descriptor)
            os.close(descriptor)
            raise error from None
        except OSError:
            # The file system has no locks.
            return descriptor
        try:
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)


def _in_use(path: Path, descriptor: int) -> UsageError:
    return UsageError(
        f"{path.parent} is in use by {_describe(_read_holder(descriptor))}; wait for it, stop it, "
        "or choose another --out"
    )


def _read_holder(descriptor: int) -> dict[str, Any]:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _write_holder(descriptor: int) -> None:
    content = json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode()
    # A full disk must not end the run: the lock itself needs no content.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content, 0)


def _describe(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on {holder.get('host', 'an unknown host')}"
