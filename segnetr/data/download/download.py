"""Fetching an official archive: resumed where it broke off, believed only when its hash is right.

What a server says (length, ranges, tags) is a claim: it decides what is tried, never what is taken.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from segnetr.data.download.sources import Archive, describe_mismatch, digest_file, has_hash
from segnetr.data.download.transfer import BrokenOffError, Partial, Reply, Version, open_address
from segnetr.errors import DownloadError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, describe_bytes, require_space

_CHUNK = 1 << 18
_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19}|\*)")
_MAY_PASS = {408, 425, 429, 500, 502, 503, 504}
Report = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRules:
    """How long and how much.

    Attributes:
        timeout: Seconds without a byte after which a connection counts as broken.
        tries: Connections in a row that may fail and bring less than `least_bytes`.
        connections: Connections in all.
        pause: Seconds before the second try; doubled each time.
        most_bytes: Bytes above which no file is fetched whose size nobody published.
        window: Seconds in which at least `least_bytes` have to come, against a server that drips.
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
    report: Report | None = None,
) -> Path:
    """Fetch an archive into a folder, or go on with it where an earlier try broke off.

    Args:
        archive: What to fetch; it has an address.
        folder: Where to; made where it is missing.
        rules: How long and how much; None: the defaults.
        report: Called now and then with the bytes that are there and the bytes expected; the second
            is the first where nobody says how many there are.

    Returns:
        The file, whole and with the published hash, if one was published.

    Raises:
        DownloadError: If the server does not give the file, or gives another one.
        WriteError: If there is no room for it; what has come stays for another try.
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
    report: Report
    is_pieced: bool = False
    begun_anew: int = 0

    def run(self) -> Path:
        self._collect()
        if not self.is_right(self.partial.path) and self.is_pieced:
            # The pieces may be of two versions of the file: once more, in one piece.
            self.partial.discard()
            self.is_pieced = False
            self._collect()
        difference = self._difference(self.partial.path)
        if difference is not None:
            self.partial.discard()
            raise DownloadError(
                f"{self.archive.address}: what came {difference}; it was removed; try again later, "
                "or fetch it by hand and give it as --source"
            )
        return self.partial.finish()

    def is_right(self, path: Path) -> bool:
        return self._difference(path) is None

    def _difference(self, path: Path) -> str | None:
        with as_write_error(path, option=DATA_DIR), path.open("rb") as file:
            return describe_mismatch(self.archive, digest_file(file, path))

    def _collect(self) -> None:
        """Connect until the file is there, or until there is no point in it."""
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
        """A length that was claimed too large does not spoil a file whose hash is right."""
        return self.partial.size > 0 and has_hash(self.archive) and self.is_right(self.partial.path)

    def _give_up(self, reason: str) -> DownloadError:
        kept = describe_bytes(self.partial.size)
        return DownloadError(
            f"{self.archive.address}: {reason}; {kept} are kept in {self.partial.path}: the same "
            "command goes on from there"
        )

    def _connect(self) -> None:
        """Fetch what is missing over one connection."""
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
                self.is_pieced = True
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

    def _check_status(self, reply: Reply, *, asked: bool) -> None:
        status = reply.status
        if status == 200 or (status == 206 and asked):
            if reply.header("Content-Encoding") in {None, "identity"}:
                return
            raise DownloadError(
                f"{self.archive.address}: sends it packed though asked not to; fetch it by hand "
                "and give it as --source"
            )
        if status in _MAY_PASS:
            raise BrokenOffError(f"answers with the status {status}")
        gone = "there is no such file" if status in {404, 410} else "the file is not given"
        raise DownloadError(
            f"{self.archive.address}: {gone} (status {status}); fetch it by hand and give it as "
            "--source"
        )

    def _take_as_end(self, reply: Reply, offset: int) -> None:
        """Where nothing follows, the bytes that are there may be all: the hash decides."""
        if (reply.header("Content-Range") or "").strip() != f"bytes */{offset}":
            self._begin_anew("has no bytes where more were asked for")

    def _begin_anew(self, reason: str) -> NoReturn:
        self.partial.discard()
        self.begun_anew += 1
        if self.begun_anew > self.rules.tries:
            raise self._give_up(reason)
        raise BrokenOffError(reason)

    def _check_range(self, reply: Reply, known: Version, offset: int) -> None:
        """Refuse a piece that is not the one asked for, or of another version of the file."""
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
            self._begin_anew("gives another piece than the one asked for")

    def _check_size(self, claimed: int | None) -> None:
        if claimed is None:
            return
        official = self.archive.size
        if official is not None and claimed != official:
            raise DownloadError(
                f"{self.archive.address}: announces {claimed} bytes, the official file has "
                f"{official}; fetch it by hand and give it as --source"
            )
        if claimed > self.rules.most_bytes:
            raise DownloadError(
                f"{self.archive.address}: announces {describe_bytes(claimed)}, more than "
                f"{describe_bytes(self.rules.most_bytes)} are not fetched"
            )

    def _receive(self, reply: Reply, offset: int, total: int | None) -> None:
        most = self.archive.size or self.rules.most_bytes
        start, mark = time.monotonic(), offset
        done = offset
        with self.partial.append() as file:
            while total is None or done < total:
                # A body may be longer than it claims; what is more is another file's business.
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


def _read_version(reply: Reply, address: str) -> Version:
    etag = reply.header("ETag")
    # A weak tag names files that are alike, not files that are equal.
    is_strong = etag is not None and etag.startswith('"') and etag.isprintable()
    return Version(
        address=address,
        etag=etag if is_strong else None,
        modified=reply.header("Last-Modified"),
        total=reply.length,
    )


def _ignore(done: int, total: int) -> None:
    """Take a report of progress nobody waits for."""
