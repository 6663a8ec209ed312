"""The folder of decoded, reduced copies: where things lie, and how they get there safely.

    v1/files/ab/<path>.json     one image or mask file: size, time and sha256 when last seen
    v1/cases/ab/<key>.json      one case under one content and one setting: shapes, or its issue
    v1/cases/ab/<key>.image.npy, <key>.mask.npy
    v1/parts/                   being written; renamed when complete

Every file is written aside and renamed, the record of a case last, so a builder may be killed at
any time, and any number of builders may work at once: at worst two do the same work. Nothing is
synchronized to the disk: what a power cut tears is found by its size and made anew.
"""

import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segnetr.data.preprocessing.resize import Array
from segnetr.errors import WriteError

# Raise it when readers or resizing change what they make of a file: old copies are then unused.
CACHE_VERSION = 2

_DAY = 24 * 60 * 60


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells a file from its earlier self without reading it.

    Attributes:
        size: In bytes.
        mtime_ns: Time of the last change in nanoseconds.
    """

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> "FileStamp":
        """Take the stamp of a file.

        Raises:
            OSError: If there is no such file.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns)


def find_cache_folder() -> Path:
    """Give the user's folder: below $SEGNETR_HOME, $XDG_CACHE_HOME or ~/.cache."""
    home = os.environ.get("SEGNETR_HOME")
    if home:
        return Path(home) / "cache"
    # The XDG rules say that a relative path counts as none.
    shared = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "segnetr"


@dataclass(frozen=True, slots=True)
class CacheFolder:
    """Reads and writes the files of one cache folder.

    Attributes:
        root: The folder; made when first written to.
    """

    root: Path

    def array_path(self, key: str, name: str) -> Path:
        """Give the place of an array of a case, `name` being "image" or "mask"."""
        return self._place("cases", key, f".{name}.npy")

    def load_cached_sha256(self, path: Path, stamp: FileStamp) -> str | None:
        """Give a file's sha256 if the file was seen before and has the same stamp."""
        known = _read_json(self._place("files", _hash_text(str(path)), ".json"))
        if known.get("size") != stamp.size or known.get("mtime_ns") != stamp.mtime_ns:
            return None
        sha256 = known.get("sha256")
        return sha256 if isinstance(sha256, str) else None

    def remember_sha256(self, path: Path, stamp: FileStamp, sha256: str) -> None:
        """Note a file's sha256.

        Raises:
            WriteError: If it cannot be written.
        """
        facts = {
            "path": str(path),
            "size": stamp.size,
            "mtime_ns": stamp.mtime_ns,
            "sha256": sha256,
        }
        self._write_json(self._place("files", _hash_text(str(path)), ".json"), facts)

    def read_record(self, key: str) -> Mapping[str, Any]:
        """Give the record of a case, empty where there is none or it is damaged."""
        return _read_json(self._place("cases", key, ".json"))

    def write_record(self, key: str, record: Mapping[str, Any]) -> None:
        """Write the record of a case, after its arrays.

        Raises:
            WriteError: If it cannot be written.
        """
        self._write_json(self._place("cases", key, ".json"), record)

    def write_array(self, key: str, name: str, array: Array) -> None:
        """Write an array of a case.

        Raises:
            WriteError: If it cannot be written.
        """
        # By way of memory: numpy itself hides the reason when a disk is full.
        content = io.BytesIO()
        np.save(content, array, allow_pickle=False)
        self._replace(self.array_path(key, name), content.getbuffer())

    def remove_old_parts(self) -> None:
        """Remove what killed builders left behind more than a day ago."""
        with suppress(OSError):  # another builder may be faster
            for part in self._parts.iterdir():
                if time.time() - part.stat().st_mtime > _DAY:
                    part.unlink(missing_ok=True)

    @property
    def _parts(self) -> Path:
        return self.root / f"v{CACHE_VERSION}" / "parts"

    def _place(self, kind: str, key: str, suffix: str) -> Path:
        # 256 folders, because listing a hundred thousand files at once is slow everywhere.
        return self.root / f"v{CACHE_VERSION}" / kind / key[:2] / f"{key}{suffix}"

    def _write_json(self, target: Path, content: Mapping[str, Any]) -> None:
        self._replace(target, json.dumps(content).encode())

    def _replace(self, target: Path, content: bytes | memoryview) -> None:
        part = self._parts / uuid.uuid4().hex
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("xb") as file:
                    file.write(content)
                part.replace(target)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(
                f"{self.root}: cannot write the cache ({error.strerror or error}); free some space "
                "there, or choose another folder with --set data.cache_dir=DIR"
            ) from error


def is_sound(path: Path, *, shape: tuple[int, ...], dtype: str) -> bool:
    """Say whether a cached array has the shape, the type and the length it was written with."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
        length = array.offset + array.nbytes
        whole = path.stat().st_size == length
    except (OSError, ValueError, EOFError):
        return False
    return whole and array.shape == shape and array.dtype == np.dtype(dtype)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
