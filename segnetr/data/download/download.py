"""Download official archives, resume interrupted downloads, and verify their hash.

Lengths, ranges and tags from the server are not trusted. They choose the next request, but only the
hash decides whether a file is accepted.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from segnetr.data.download.sources import Archive, describe_mismatch, digest_file, has_hash
from segnetr.data.download.transfer import (
    BrokenOffError,
    Partial,
    ServerResponse,
    Version,
    open_address,
)
from segnetr.errors import DownloadError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, describe_bytes, require_space

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)")
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
_Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRules:
    """Limits on time and size.

    Attributes:
        timeout: Seconds without data after which a connection counts as broken.
        tries: Maximum number of consecutive connections that bring less than `least_bytes`.
        connections: Maximum number of connections.
        pause: Seconds before the second attempt; doubled each time.
        most_bytes: Maximum size of a file without a published size.
        window: Seconds in which at least `least_bytes` must arrive.
        least_bytes: See `window`.
    """

    timeout: float = 60.0
    tries: int = 5
    connections: int = 200
    pause: float = 2.0
    most_bytes: int = 100 << 30
    window: float = 120.0
    least_bytes: int = 16_384


def download(
    archive: Archive,
    folder: Path,
    *,
    rules: DownloadRules | None = None,
    report: _Report | None = None,
) -> Path:
    """Download an archive into a folder, or resume an interrupted download.

    Args:
        archive: An archive with an address.
        folder: The target folder. It is created if it does not exist.
        rules: Limits, or None for the defaults.
        report: Called with the number of downloaded bytes and the expected number. Both are equal
            if the size is unknown.

    Returns:
        The complete file. It has the published hash, if there is one.

    Raises:
        DownloadError: If the server does not send the file, or sends another one.
        WriteError: If the disk is full. The downloaded bytes stay for the next attempt.
    """
    with as_write_error(folder, option=DATA_DIR):
        folder.mkdir(parents=True, exist_ok=True)
    target = folder / archive.name
    fetch = _Fetch(archive, Partial(target), rules or DownloadRules(), report or _ignore)
    if target.is_file():
        if fetch.is_right(target):
            return target
        with as_write_error(target, option=DATA_DIR):
            target.unlink()
    return fetch.run()


@dataclass(slots=True)
class _Fetch:
    """The state of one download."""

    archive: Archive
    partial: Partial
    rules: DownloadRules
    report: _Report
    is_resumed: bool = False
    restarts: int = 0

    def run(self) -> Path:
        self._collect()
        if not self.is_right(self.partial.path) and self.is_resumed:
            # The bytes may belong to two versions of the file. Restart the download.
            self.partial.discard()
            self.is_resumed = False
            self._collect()
        difference = self._difference(self.partial.path)
        if difference is not None:
            self.partial.discard()
            raise DownloadError(
                f"{self.archive.address}: what came {difference}; it was removed; try again later, "
                "or download it manually and pass it as --source"
            )
        return self.partial.finish()

    def is_right(self, path: Path) -> bool:
        return self._difference(path) is None

    def _difference(self, path: Path) -> str | None:
        with as_write_error(path, option=DATA_DIR), path.open("rb") as file:
            return describe_mismatch(self.archive, digest_file(file, path))

    def _collect(self) -> None:
        """Connect until the file is complete, or until the limits are reached."""
        failures, most = 0, self.partial.size
        for _ in range(self.rules.connections):
            try:
                self._connect()
                return
            except BrokenOffError as error:
                has_grown = self.partial.size >= most + self.rules.least_bytes
                failures = 0 if has_grown else failures + 1
                most = max(most, self.partial.size)
                if failures >= self.rules.tries:
                    if self._is_whole_after_all():
                        return
                    raise self._give_up(str(error)) from error
            if failures:
                time.sleep(self.rules.pause * 2 ** (failures - 1))
        raise self._give_up(f"broke off {self.rules.connections} times")

    def _is_whole_after_all(self) -> bool:
        """Accept a file with the right hash, even if the server announced more bytes."""
        return self.partial.size > 0 and has_hash(self.archive) and self.is_right(self.partial.path)

    def _give_up(self, reason: str) -> DownloadError:
        kept = describe_bytes(self.partial.size)
        return DownloadError(
            f"{self.archive.address}: {reason}; {kept} are kept in {self.partial.path}: the same "
            "command goes on from there"
        )

    def _connect(self) -> None:
        """Download the missing bytes over one connection."""
        known = self.partial.version(self.archive.address)
        offset = self.partial.size if known is not None else 0
        if known is not None and offset and offset == known.total:
            return
        headers = {}
        if known is not None and offset and (known.validator or has_hash(self.archive)):
            headers["Range"] = f"bytes={offset}-"
            if known.validator:
                headers["If-Range"] = known.validator
        reply = open_address(self.archive.address, headers=headers, timeout=self.rules.timeout)
        with reply.response:
            if reply.status == 416 and "Range" in headers:
                self._take_as_end(reply, offset)
                return
            self._check_status(reply, asked="Range" in headers)
            if reply.status == 206 and known is not None:
                self._check_range(reply, known, offset)
                total = known.total
                self.is_resumed = True
            else:
                offset, total = 0, reply.length
                self._check_size(total)
                self.partial.begin(_read_version(reply, self.archive.address))
            if total is not None:
                require_space(
                    self.partial.path.parent,
                    total - offset,
                    purpose=f"fetching {self.archive.name}",
                )
            self._receive(reply, offset, total)

    def _check_status(self, reply: ServerResponse, *, asked: bool) -> None:
        status = reply.status
        if status == 200 or (status == 206 and asked):
            if reply.header("Content-Encoding") in {None, "identity"}:
                return
            raise DownloadError(
                f"{self.archive.address}: sends compressed data; download it manually "
                "and pass it as --source"
            )
        if status in _MAY_PASS:
            raise BrokenOffError(f"answers with the status {status}")
        gone = "there is no such file" if status in {404, 410} else "the file is not given"
        raise DownloadError(
            f"{self.archive.address}: {gone} (status {status}); download it and pass it as --source"
        )

    def _take_as_end(self, reply: ServerResponse, offset: int) -> None:
        """Handle status 416: the file may be complete, so the hash decides."""
        if (reply.header("Content-Range") or "").strip() != f"bytes */{offset}":
            self._restart("has no bytes where more were asked for")

    def _restart(self, reason: str) -> NoReturn:
        self.partial.discard()
        self.restarts += 1
        if self.restarts > self.rules.tries:
            raise self._give_up(reason)
        raise BrokenOffError(reason)

    def _check_range(self, reply: ServerResponse, known: Version, offset: int) -> None:
        """Reject a range that was not requested, or that belongs to another version of the file."""
        found = _RANGE.fullmatch((reply.header("Content-Range") or "").strip())
        given = _read_version(reply, self.archive.address)
        is_other = (
            found is None
            or int(found[1]) != offset
            or (known.total is not None and found[2] not in {str(known.total), "*"})
            or (known.etag is not None and given.etag not in {None, known.etag})
            or (known.modified is not None and given.modified not in {None, known.modified})
        )
        if is_other:
            self._restart("gives another piece than the one asked for")

    def _check_size(self, claimed: int | None) -> None:
        if claimed is None:
            return
        official = self.archive.size
        if official is not None and claimed != official:
            raise DownloadError(
                f"{self.archive.address}: announces {claimed} bytes, the official file has "
                f"{official}; download it manually and pass it as --source"
            )
        if claimed > self.rules.most_bytes:
            raise DownloadError(
                f"{self.archive.address}: announces {describe_bytes(claimed)}, more than "
                f"{describe_bytes(self.rules.most_bytes)} are not fetched"
            )

    def _receive(self, reply: ServerResponse, offset: int, total: int | None) -> None:
        most = self.archive.size or self.rules.most_bytes
        start, mark = time.monotonic(), offset
        done = offset
        with self.partial.append() as file:
            while total is None or done < total:
                # Ignore bytes beyond Content-Length.
                chunk = reply.read(_CHUNK if total is None else min(_CHUNK, total - done))
                if not chunk:
                    break
                self.partial.add(file, chunk)
                done += len(chunk)
                if done > most:
                    self.partial.discard()
                    raise DownloadError(
                        f"{self.archive.address}: sends more than {describe_bytes(most)}; it was "
                        "removed"
                    )
                self.report(done, max(done, total or 0))
                if time.monotonic() - start > self.rules.window:
                    if done - mark < self.rules.least_bytes:
                        raise BrokenOffError("sends too slowly")
                    start, mark = time.monotonic(), done
        if total is not None and done < total:
            raise BrokenOffError(f"broke off after {done} of {total} bytes")


def _read_version(reply: ServerResponse, address: str) -> Version:
    etag = reply.header("ETag")
    # A weak tag identifies equivalent files, not identical ones.
    is_strong = etag is not None and etag.startswith('"') and etag.isprintable()
    return Version(
        address=address,
        etag=etag if is_strong else None,
        modified=reply.header("Last-Modified"),
        total=reply.length,
    )


def _ignore(done: int, total: int) -> None:
    """Ignore progress."""
