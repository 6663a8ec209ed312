"""Write files and folders atomically, with a hash for every byte.

A folder is written under a temporary name, gets a `MANIFEST.sha256` (the format of the `sha256sum`
tool), is flushed to disk and only then renamed. So a power cut, a kill or a full disk never leaves
an incomplete folder under its final name. Hashes are checked on reading, because safetensors and
torch silently load a file with a flipped byte.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from segnetr.errors import ModelFileError
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.fsync import sync_file, sync_folder, sync_tree

MANIFEST_NAME = "MANIFEST.sha256"
_CHUNK = 1 << 20
_HEX = frozenset("0123456789abcdef")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file of a folder that gets its manifest later. `OSError` is not converted."""
    path.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write or replace a text file (UTF-8) atomically.

    Raises:
        WriteError: If it cannot be written. An existing file is then unchanged.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with as_write_error(path):
        try:
            write_bytes(aside, text.encode())
            sync_file(aside)
            aside.replace(path)
            sync_folder(path.parent)
        finally:
            aside.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON atomically. The order of keys is preserved.

    Raises:
        WriteError: If it cannot be written.
    """
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_manifest(folder: Path) -> None:
    """Write the manifest of a folder: the hash of every file in it, by name.

    Raises:
        WriteError: If the manifest cannot be written.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    lines = [
        f"{hash_file(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in files
        if path.name != MANIFEST_NAME
    ]
    write_text_atomic(folder / MANIFEST_NAME, "".join(lines))


def verify_manifest(folder: Path, *, required: Iterable[str] = ()) -> None:
    """Check every file in the manifest.

    Args:
        folder: A folder with a manifest.
        required: Relative names that the manifest must list.

    Raises:
        ModelFileError: If the folder, its manifest or a file is missing, damaged or changed.
    """
    listed = _read_manifest(folder)
    for name in required:
        if name not in listed:
            raise ModelFileError(f"{folder}: {MANIFEST_NAME} does not list {name}; {_ADVICE}")
    for name, expected in listed.items():
        path = folder / name
        try:
            found = hash_file(path)
        except FileNotFoundError as error:
            raise ModelFileError(f"{path}: the file is missing; {_ADVICE}") from error
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror or error}; {_ADVICE}") from error
        if found != expected:
            raise ModelFileError(f"{path}: the bytes differ from {MANIFEST_NAME}; {_ADVICE}")


def replace_folder(build: Callable[[Path], None], target: Path) -> None:
    """Write a folder with its manifest, and replace an existing one.

    At every moment either the old or the new folder is complete on disk: under its name, or between
    two renames as `.NAME.old`, from which `recover_folder` restores it.

    Args:
        build: Fills an empty folder.
        target: The path of the folder.

    Raises:
        WriteError: If it cannot be written. An existing folder is then unchanged.
    """
    with as_write_error(target):
        recover_folder(target)
    with build_aside(build, target) as aside, as_write_error(target):
        old = _old_name(target)
        if target.exists():
            target.rename(old)
        aside.rename(target)
        sync_folder(target.parent)
        shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def build_aside(build: Callable[[Path], None], target: Path) -> Iterator[Path]:
    """Build a folder with its manifest next to its target. Yield its path, then remove leftovers.

    Raises:
        WriteError: If it cannot be written.
    """
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with as_write_error(target):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            build(aside)
            write_manifest(aside)
            sync_tree(aside)
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def recover_folder(target: Path) -> None:
    """Restore the folder after a kill between two renames, and remove incomplete folders."""
    old = _old_name(target)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


_ADVICE = "copy the folder again or train again"


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: the file is missing; {_ADVICE}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error}); {_ADVICE}") from error
    listed: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not _HEX.issuperset(digest) or not _is_inside(name):
            raise ModelFileError(f"{path}: damaged or changed; {_ADVICE}")
        listed[name] = digest
    if not listed:
        raise ModelFileError(f"{path}: lists no file; {_ADVICE}")
    return listed


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return (
        bool(parts)
        and "\0" not in name
        and ".." not in parts
        and not PurePosixPath(name).is_absolute()
    )


def hash_file(path: Path) -> str:
    """Return the sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
