"""Is a file the official one? Hashes of a file, and what the official one has."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segnetr.data.download.sources import Archive
from segnetr.errors import ArchiveError, ReadError

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """What identifies a file.

    Attributes:
        size: In bytes.
        sha256: In hexadecimal.
        md5: In hexadecimal; some archives were published with no other hash. It finds a torn file
            and not a forged one.
    """

    size: int
    sha256: str
    md5: str


def digest_file(
    file: IO[bytes], path: Path, *, report: Callable[[int, int], None] | None = None
) -> Digest:
    """Hash an open file from its start.

    Args:
        file: The file.
        path: Its path, for messages.
        report: Called with the bytes done, and all.

    Raises:
        ReadError: If it cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    done = 0
    try:
        size = file.seek(0, 2)
        file.seek(0)
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done, max(done, size))
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    return Digest(size=done, sha256=sha256.hexdigest(), md5=md5.hexdigest())


def find_official(name: str, digest: Digest, archives: Sequence[Archive]) -> Archive | None:
    """Find the official archive a file is by its hash, or where none was published by its name."""
    for archive in archives:
        if describe_mismatch(archive, digest) is None and has_hash(archive):
            return archive
    named = [archive for archive in archives if archive.name == name]
    return named[0] if named else None


def has_hash(archive: Archive) -> bool:
    """Tell whether a hash of the archive was published."""
    return archive.sha256 is not None or archive.md5 is not None


def describe_mismatch(archive: Archive, digest: Digest) -> str | None:
    """Say what of a file is not as published, or None."""
    if archive.size is not None and archive.size != digest.size:
        return f"has {digest.size} bytes, the official {archive.name} has {archive.size}"
    if archive.sha256 is not None and archive.sha256 != digest.sha256:
        return f"has the sha256 {digest.sha256}, the official {archive.name} has {archive.sha256}"
    if archive.md5 is not None and archive.md5 != digest.md5:
        return f"has the MD5 {digest.md5}, the official {archive.name} has {archive.md5}"
    return None


def check_official(archive: Archive, digest: Digest, path: Path) -> bool:
    """Compare a file with the official one.

    Returns:
        Whether a published hash proved it; False where none was published.

    Raises:
        ArchiveError: If it is another one.
    """
    difference = describe_mismatch(archive, digest)
    if difference is not None:
        raise ArchiveError(
            path, f"{difference}; fetch it again, or give an archive of your own another name"
        )
    return has_hash(archive)
