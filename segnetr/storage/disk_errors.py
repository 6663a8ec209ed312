"""One-line errors for failed writes, and durable writes of downloaded data."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from segnetr.errors import WriteError
from segnetr.storage.fsync import sync_file, sync_folder

DATA_DIR = "--data-dir"
"""The option that chooses the folder of downloaded data."""

# A completely full disk makes later writes fail elsewhere.
_SPARE = 64 << 20
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def as_write_error(path: Path, *, option: str = "--out") -> Iterator[None]:
    """Convert an `OSError` into a one-line error that names the path.

    Args:
        path: The path to name if the system names none.
        option: The command-line option that chooses another folder.

    Raises:
        WriteError: If the body raises an `OSError`.
    """
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        raise WriteError(
            f"cannot write {named}: {error.strerror or error}; free space or choose another "
            f"{option}"
        ) from error


def write_new_file(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a file that must not exist yet. `segnetr.storage.fsync` flushes it to disk.

    Links are not followed, and the file is not executable.

    Returns:
        The number of bytes written.

    Raises:
        WriteError: If it cannot be written. Errors raised by `chunks` are not converted.
    """
    with as_write_error(path, option=DATA_DIR):
        descriptor = os.open(path, _NEW_FILE, 0o644)
    written = 0
    try:
        for chunk in chunks:
            with as_write_error(path, option=DATA_DIR):
                write_all(descriptor, chunk)
            written += len(chunk)
    finally:
        os.close(descriptor)
    return written


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes. `OSError` is not converted."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def replace_text(path: Path, text: str) -> None:
    """Write or replace a text file (UTF-8) atomically.

    Raises:
        WriteError: If it cannot be written. An existing file is then unchanged.
    """
    aside = path.with_name(f"{path.name}.new")
    with as_write_error(path, option=DATA_DIR):
        aside.unlink(missing_ok=True)
    try:
        write_new_file(aside, [text.encode()])
        with as_write_error(path, option=DATA_DIR):
            sync_file(aside)
            aside.replace(path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def require_space(folder: Path, needed: int, *, purpose: str) -> None:
    """Check that a disk has enough free space.

    Args:
        folder: An existing folder on the disk.
        needed: Bytes that will be written.
        purpose: The purpose, for the message.

    Raises:
        WriteError: If the disk has less.
    """
    with as_write_error(folder, option=DATA_DIR):
        free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise WriteError(
            f"{folder}: {purpose} needs {describe_bytes(needed)}, the disk has "
            f"{describe_bytes(free)} free; free space or choose another --data-dir"
        )


def describe_bytes(number: int) -> str:
    """Return a number of bytes with a unit: `512 B`, `1.5 GiB`."""
    size = float(number)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
