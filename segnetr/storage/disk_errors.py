"""Writing that says in one line what went wrong, and files that are on the disk when we say so."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from segnetr.errors import WriteError
from segnetr.storage.fsync import sync_file, sync_folder

# A disk filled to the last byte fails elsewhere, later.
_SPARE = 64 << 20
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def as_write_error(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into one line that names the path.

    Raises:
        WriteError: Where the body raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else path
        raise WriteError(
            f"cannot write {named}: {error.strerror or error}; free space or choose another "
            "--data-dir"
        ) from error


def write_new_file(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a file that must not be there yet; `segnetr.storage.fsync` forces it to the disk.

    It is never followed through a link, never executable, and has no owner but the user.

    Returns:
        The bytes written.

    Raises:
        WriteError: If it cannot be written. What `chunks` raises passes through.
    """
    with as_write_error(path):
        descriptor = os.open(path, _NEW_FILE, 0o644)
    written = 0
    try:
        for chunk in chunks:
            with as_write_error(path):
                write_all(descriptor, chunk)
            written += len(chunk)
    finally:
        os.close(descriptor)
    return written


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the bytes; `OSError` passes through."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_text(path: Path, text: str) -> None:
    """Write or replace a text file (UTF-8) in one step.

    Raises:
        WriteError: If it cannot be written; an older file is then untouched.
    """
    aside = path.with_name(f"{path.name}.new")
    with as_write_error(path):
        aside.unlink(missing_ok=True)
    try:
        write_new_file(aside, [text.encode()])
        with as_write_error(path):
            sync_file(aside)
            aside.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def require_space(folder: Path, needed: int, *, purpose: str) -> None:
    """Refuse to begin what cannot end.

    Args:
        folder: A folder that is there, on the disk in question.
        needed: Bytes that will be written.
        purpose: What for, for the message.

    Raises:
        WriteError: If the disk has less.
    """
    with as_write_error(folder):
        free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise WriteError(
            f"{folder}: {purpose} needs {describe_bytes(needed)}, the disk has "
            f"{describe_bytes(free)} free; free space or choose another --data-dir"
        )


def describe_bytes(number: int) -> str:
    """Give a number of bytes for people: `512 B`, `1.5 GiB`."""
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
