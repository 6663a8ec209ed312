"""Files and folders that are either whole or not there, with a hash for every byte.

A folder is written aside, sealed with `MANIFEST.sha256` (the format of the `sha256sum` tool),
forced to the disk and only then renamed, so that a power cut, a kill or a full disk never leaves
half of one under its real name. Hashes are checked on reading, because safetensors and torch load
a file with one flipped byte without a word.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from segnetr.errors import ModelFileError, WriteError
from segnetr.storage.fsync import sync_file, sync_folder, sync_tree

MANIFEST_NAME = "MANIFEST.sha256"
_CHUNK = 1 << 20
_HEX = frozenset("0123456789abcdef")


@contextlib.contextmanager
def as_write_error(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing into one line that names the path.

    Raises:
        WriteError: Where the body raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        named = Path(error.filename) if isinstance(error.filename, str) else path
        raise WriteError(
            f"cannot write {named}: {error.strerror or error}; free space or choose another --out"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file below a folder that is sealed later; `OSError` passes through."""
    path.write_bytes(data)


def write_text_atomic(path: Path, text: str) -> None:
    """Write or replace a text file (UTF-8) in one step.

    Raises:
        WriteError: If it cannot be written; an older file is then untouched.
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
    """Write plain data as JSON, keys in their order, in one step.

    Raises:
        WriteError: If it cannot be written.
    """
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_manifest(folder: Path) -> None:
    """Write the hash of every file below a folder, by name, into its manifest.

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
    """Check every file the manifest lists.

    Args:
        folder: The sealed folder.
        required: Names, relative to it, that the manifest has to list.

    Raises:
        ModelFileError: If the folder, its manifest or a file is missing, torn or changed.
    """
    listed = _read_manifest(folder)
    for name in required:
        if name not in listed:
            raise ModelFileError(f"{folder}: {MANIFEST_NAME} does not list {name}; {_WAY_OUT}")
    for name, expected in listed.items():
        path = folder / name
        try:
            found = hash_file(path)
        except FileNotFoundError as error:
            raise ModelFileError(f"{path}: the file is missing; {_WAY_OUT}") from error
        except OSError as error:
            raise ModelFileError(f"{path}: {error.strerror or error}; {_WAY_OUT}") from error
        if found != expected:
            raise ModelFileError(f"{path}: the bytes differ from {MANIFEST_NAME}; {_WAY_OUT}")


def replace_folder(build: Callable[[Path], None], target: Path) -> None:
    """Write a sealed folder aside and put it in the place of an older one.

    At every moment either the old or the new folder is whole on the disk, under its name or, for
    the instant between two renames, as `.NAME.old`, from where `recover_folder` brings it back.

    Args:
        build: Fills the empty folder it is given.
        target: Where the folder is to stand.

    Raises:
        WriteError: If it cannot be written; an older folder is then untouched.
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
    """Build and seal a folder beside its target and give its path; what is left is removed.

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
    """Undo what a kill between two renames, or in the middle of writing, left behind."""
    old = _old_name(target)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    for partial in target.parent.glob(f".{target.name}.*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


_WAY_OUT = "copy the folder again or train anew"


def _old_name(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _read_manifest(folder: Path) -> dict[str, str]:
    path = folder / MANIFEST_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: the file is missing; {_WAY_OUT}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: cannot be read ({error}); {_WAY_OUT}") from error
    listed: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        if len(digest) != 64 or not _HEX.issuperset(digest) or not _is_inside(name):
            raise ModelFileError(f"{path}: torn or changed; {_WAY_OUT}")
        listed[name] = digest
    if not listed:
        raise ModelFileError(f"{path}: lists no file; {_WAY_OUT}")
    return listed


def _is_inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not PurePosixPath(name).is_absolute()


def hash_file(path: Path) -> str:
    """Give the sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
