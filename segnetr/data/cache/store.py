"""The cache folder, and the processes that fill it.

    v3/files/ab/<path>.json     one image or mask file: size, time and sha256 when last read
    v3/cases/ab/<key>.json      one case with one content and one setting: shapes, or its issue
    v3/cases/ab/<key>.image.npy, <key>.mask.npy
    v3/parts/                   files being written, renamed when complete

Every file is written to a temporary path and renamed, the record of a case last. A builder may
therefore be killed at any time, and several builders may run at once: at worst, two do the same
work. Files are not fsynced. Damage by a power failure is detected by the file size, and the copy is
built again.
"""

import hashlib
import io
import json
import multiprocessing
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np

from segnetr.data.loading.stop_signals import block_stop_signals
from segnetr.data.preprocessing.resize import Array
from segnetr.errors import SegNetrError, WriteError

# Increase this number when readers or resizing change their output. Old copies are then not used.
CACHE_VERSION = 3

_DAY = 24 * 60 * 60

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and time of a file, to detect changes without reading it.

    Attributes:
        size: In bytes.
        mtime_ns: Time of the last change in nanoseconds.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        """Return the stamp of a file.

        Raises:
            OSError: If the file does not exist.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


def find_cache_folder() -> Path:
    """Return the user's cache folder, below $SEGNETR_HOME, $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("SEGNETR_HOME")
    if home:
        return Path(home) / "cache"
    # The XDG specification says to ignore a relative path.
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "segnetr"


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """Reads and writes the files of one cache folder.

    Attributes:
        root: The folder. It is created by the first write.
    """

    root: Path

    @classmethod
    def open(cls, folder: Path | None) -> "CacheFolder":
        """Return the cache in a folder. None: the user's cache folder."""
        return cls((folder or find_cache_folder()).expanduser().absolute())

    def array_path(self, key: str, name: str) -> Path:
        """Return the path of an array of a case, where `name` is "image" or "mask"."""
        return self._path("cases", key, f".{name}.npy")

    def load_sha256(self, path: Path) -> str | None:
        """Return a file's stored hash, or None if the file is missing, new or changed."""
        try:
            stamp = FileStamp.of(path)
        except OSError:
            return None
        record = _read_json(self._path("files", _hash_text(str(path.absolute())), ".json"))
        if record.get("size") != stamp.size or record.get("mtime_ns") != stamp.mtime_ns:
            return None
        sha256 = record.get("sha256")
        return sha256 if isinstance(sha256, str) else None

    def save_sha256(self, path: Path, stamp: FileStamp, sha256: str) -> None:
        """Store a file's hash.

        Raises:
            WriteError: If it cannot be written.
        """
        absolute = str(path.absolute())
        record = {
            "path": absolute,
            "size": stamp.size,
            "mtime_ns": stamp.mtime_ns,
            "sha256": sha256,
        }
        self._write_json(self._path("files", _hash_text(absolute), ".json"), record)

    def read_record(self, key: str) -> Mapping[str, Any]:
        """Return the record of a case. Empty if it is missing or damaged."""
        return _read_json(self._path("cases", key, ".json"))

    def write_record(self, key: str, record: Mapping[str, Any]) -> None:
        """Write the record of a case, after its arrays.

        Raises:
            WriteError: If it cannot be written.
        """
        self._write_json(self._path("cases", key, ".json"), record)

    def write_array(self, key: str, name: str, array: Array) -> None:
        """Write an array of a case.

        Raises:
            WriteError: If it cannot be written.
        """
        # Through memory, because numpy hides the reason when a disk is full.
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        self._replace(self.array_path(key, name), content.getbuffer())

    def remove_old_parts(self) -> None:
        """Remove temporary files of killed builders that are more than a day old."""
        with suppress(OSError):  # another builder may be faster
            for path in self._parts.iterdir():
                if time.time() - path.stat().st_mtime > _DAY:
                    path.unlink(missing_ok=True)

    @property
    def _parts(self) -> Path:
        return self.root / f"v{CACHE_VERSION}" / "parts"

    def _path(self, kind: str, key: str, suffix: str) -> Path:
        # 256 subfolders, because listing a hundred thousand files in one folder is slow.
        return self.root / f"v{CACHE_VERSION}" / kind / key[:2] / f"{key}{suffix}"

    def _write_json(self, target: Path, content: Mapping[str, Any]) -> None:
        self._replace(target, json.dumps(content).encode())

    def _replace(self, target: Path, content: bytes | memoryview) -> None:
        temporary = self._parts / uuid.uuid4().hex
        try:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as file:
                    file.write(content)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(
                f"{self.root}: cannot write the cache ({error.strerror or error}); free some space "
                "there, or choose another folder with --set data.cache_dir=DIR"
            ) from error


def hash_cached_file(path: Path, cache: CacheFolder) -> str:
    """Return the sha256 of a file and store it in the cache.

    Raises:
        OSError: If the file cannot be read.
        WriteError: If the cache cannot be written.
    """
    stamp = FileStamp.of(path)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    cache.save_sha256(path, stamp, sha256)
    return sha256


def is_intact(path: Path, *, shape: tuple[int, ...], dtype: str) -> bool:
    """Return whether a cached array has its recorded shape, type and file length."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        is_complete = path.stat().st_size == array.offset + array.nbytes
    except (OSError, ValueError, EOFError):
        return False
    return is_complete and array.shape == shape and array.dtype == np.dtype(dtype)


def run_jobs(
    build: Callable[..., Result], jobs: Mapping[int, tuple[Any, ...]], *, workers: int
) -> Iterator[tuple[int, Result]]:
    """Run decoding jobs and yield the number and the result of each as it finishes.

    Args:
        build: Called with the arguments of a job. It must be picklable, and so must the jobs.
        jobs: Arguments by number.
        workers: Decoding processes. With 0 or 1, the jobs run in this process.

    Raises:
        SegNetrError: If a decoding process was killed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        for number, job in jobs.items():
            yield number, build(*job)
        return
    # spawn, because forking a process with torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        with block_stop_signals():
            numbers = {executor.submit(build, *job): number for number, job in jobs.items()}
        for future in as_completed(numbers):
            yield numbers[future], future.result()
    except BrokenProcessPool as error:
        raise SegNetrError(
            "a decoding process was killed, perhaps because memory ran out; run the command again "
            "with fewer --workers to continue"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _start_worker() -> None:
    """Set up a decoding process: one thread, exit with the parent."""
    cv2.setNumThreads(0)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    # If the parent is killed, the process would otherwise wait for work forever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
