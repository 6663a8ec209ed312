"""HTTP requests with checked redirects, and the file of a download that is not complete yet."""

import contextlib
import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from segnetr import __version__
from segnetr.errors import DownloadError
from segnetr.storage.disk_errors import DATA_DIR, as_write_error, replace_text, write_all
from segnetr.storage.fsync import sync_file, sync_folder

_SCHEMES = ("http", "https")
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 5


class BrokenOffError(Exception):
    """A connection that failed in a way that may pass; its text says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered, its body not read yet.

    Attributes:
        address: Where the answer came from, behind all redirects.
        response: The open connection; close it.
    """

    address: str
    response: http.client.HTTPResponse

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    def header(self, name: str) -> str | None:
        """Give a header, or None."""
        value: str | None = self.response.headers.get(name)
        return value

    @property
    def length(self) -> int | None:
        """The bytes that the body is claimed to have; None where nothing is said."""
        value = (self.header("Content-Length") or "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None

    def read(self, most: int) -> bytes:
        """Read what has come, at most so many bytes; empty at the end.

        Raises:
            BrokenOffError: If the connection fails.
        """
        try:
            return self.response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenOffError(_describe(error)) from error


def open_address(address: str, *, headers: Mapping[str, str], timeout: float) -> Reply:
    """Ask for an address and follow redirects from http or https to http or https, at most five.

    Args:
        address: Where to ask.
        headers: Sent as they are, on every hop.
        timeout: Seconds without a byte after which the connection counts as broken.

    Raises:
        DownloadError: If an address or a redirect is none that may be followed.
        BrokenOffError: If there is no connection.
    """
    # No handler for file:, ftp: or data:, none that follows redirects or raises for a status.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(handler)
    place = check_address(address, address)
    for _ in range(_MOST_REDIRECTS + 1):
        request = urllib.request.Request(place, headers=dict(headers))
        request.add_header("User-Agent", f"segnetr/{__version__}")
        request.add_header("Accept-Encoding", "identity")
        try:
            response = opener.open(request, timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenOffError(_describe(error)) from error
        if response.status not in _REDIRECTS:
            return Reply(address=place, response=response)
        with response:
            target = response.headers.get("Location")
        if not target:
            raise DownloadError(f"{address}: redirects to nowhere (status {response.status})")
        place = check_address(_join(place, target), address, before=place)
    raise DownloadError(f"{address}: redirects more than {_MOST_REDIRECTS} times")


def check_address(place: str, address: str, *, before: str = "") -> str:
    """Give an address back if it may be asked: http or https, and not from https to http.

    Args:
        place: What is about to be asked.
        address: What the user asked for, for messages.
        before: What redirected there; empty: nothing did.

    Raises:
        DownloadError: If it may not be asked.
    """
    how = "redirects to" if before else "is"
    try:
        parts = urlsplit(place)
        is_fit = parts.scheme in _SCHEMES and bool(parts.hostname) and place.isprintable()
    except ValueError:
        is_fit = False
    if not is_fit or not place.isascii() or " " in place:
        raise DownloadError(
            f"{address}: {how} {ascii(place)[:120]}, which is no http or https address; "
            "it was not followed"
        )
    if before.startswith("https:") and parts.scheme == "http":
        raise DownloadError(
            f"{address}: {how} {place[:120]}, from https to plain http; it was not followed"
        )
    return place


def _join(place: str, target: str) -> str:
    try:
        return urljoin(place, target)
    except ValueError:  # brackets that are no address; refused in the next step
        return target


def _describe(error: Exception) -> str:
    if isinstance(error, urllib.error.URLError):
        error = error.reason if isinstance(error.reason, Exception) else error
    if isinstance(error, TimeoutError):
        return "nothing came any more"
    return " ".join(str(error).split())[:120] or type(error).__name__


_ADD = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What a server says about the file it gives.

    Attributes:
        address: Where the file was asked for.
        etag: Its strong tag; None where there is none.
        modified: Time of its last change, as the server writes it; None where it says none.
        total: Bytes it is claimed to have; None where nothing is said.
    """

    address: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """What `If-Range` sends, so that a changed file is sent whole."""
        return self.etag or self.modified


class Partial:
    """The bytes so far, as `NAME.part`, and their version, as `NAME.part.json`.

    Args:
        target: The file they are to become.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._facts = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """The bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, address: str) -> Version | None:
        """Give the version of the bytes; None if they are of another address or nobody knows."""
        try:
            version = Version(**json.loads(self._facts.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.address == address else None

    def begin(self, version: Version) -> None:
        """Throw the bytes away and note the version of those that will come.

        Raises:
            WriteError: If the folder cannot be written.
        """
        self.discard()
        replace_text(self._facts, json.dumps(asdict(version)))

    def discard(self) -> None:
        """Throw the bytes away.

        Raises:
            WriteError: If they cannot be removed.
        """
        with as_write_error(self.path, option=DATA_DIR):
            self.path.unlink(missing_ok=True)
            self._facts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def append(self) -> Iterator[int]:
        """Open the file for more bytes and give its descriptor.

        Raises:
            WriteError: If it cannot be opened.
        """
        with as_write_error(self.path, option=DATA_DIR):
            descriptor = os.open(self.path, _ADD, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def add(self, descriptor: int, data: bytes) -> None:
        """Write more bytes.

        Raises:
            WriteError: If the disk is full, say; what is there stays for another try.
        """
        with as_write_error(self.path, option=DATA_DIR):
            write_all(descriptor, data)

    def finish(self) -> Path:
        """Force the bytes to the disk and give the file its name.

        Raises:
            WriteError: If it cannot be done.
        """
        with as_write_error(self._target, option=DATA_DIR):
            sync_file(self.path)
            self.path.replace(self._target)
            self._facts.unlink(missing_ok=True)
            sync_folder(self._target.parent)
        return self._target
