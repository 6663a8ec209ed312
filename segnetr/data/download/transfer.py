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
    """A connection failed in a way that may be temporary. The text is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerResponse:
    """The response of a server, before its body is read.

    Attributes:
        address: The final address after redirects.
        response: The open connection. The caller closes it.
    """

    address: str
    response: http.client.HTTPResponse

    @property
    def status(self) -> int:
        """The status code."""
        return self.response.status

    def header(self, name: str) -> str | None:
        """Return a header, or None."""
        value: str | None = self.response.headers.get(name)
        return value

    @property
    def length(self) -> int | None:
        """The announced length of the body, or None."""
        value = (self.header("Content-Length") or "").strip()
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else None

    def read(self, most: int) -> bytes:
        """Read available bytes, at most `most`. Empty at the end.

        Raises:
            BrokenOffError: If the connection fails.
        """
        try:
            return self.response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenOffError(_describe(error)) from error


def open_address(address: str, *, headers: Mapping[str, str], timeout: float) -> ServerResponse:
    """Request an address and follow at most five http or https redirects.

    Args:
        address: The address.
        headers: Headers for every request.
        timeout: Seconds without data after which the connection counts as broken.

    Raises:
        DownloadError: If the address or a redirect is not allowed.
        BrokenOffError: If the connection fails.
    """
    # Without handlers for file:, ftp: and data:, for redirects, and for error status codes.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
    ):
        opener.add_handler(handler)
    current = check_address(address, address)
    for _ in range(_MOST_REDIRECTS + 1):
        request = urllib.request.Request(current, headers=dict(headers))
        request.add_header("User-Agent", f"segnetr/{__version__}")
        request.add_header("Accept-Encoding", "identity")
        try:
            response = opener.open(request, timeout=timeout)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BrokenOffError(_describe(error)) from error
        if response.status not in _REDIRECTS:
            return ServerResponse(address=current, response=response)
        with response:
            target = response.headers.get("Location")
        if not target:
            raise DownloadError(f"{address}: redirects to nowhere (status {response.status})")
        current = check_address(_join(current, target), address, before=current)
    raise DownloadError(f"{address}: redirects more than {_MOST_REDIRECTS} times")


def check_address(target: str, address: str, *, before: str = "") -> str:
    """Return an address if it is allowed: http or https, and no redirect from https to http.

    Args:
        target: The address to request.
        address: The original address, for messages.
        before: The address that redirected to it, or empty.

    Raises:
        DownloadError: If it is not allowed.
    """
    how = "redirects to" if before else "is"
    try:
        parts = urlsplit(target)
        is_fit = parts.scheme in _SCHEMES and bool(parts.hostname) and target.isprintable()
    except ValueError:
        is_fit = False
    if not is_fit or not target.isascii() or " " in target:
        raise DownloadError(
            f"{address}: {how} {ascii(target)[:120]}, which is no http or https address; "
            "it was not followed"
        )
    if before.startswith("https:") and parts.scheme == "http":
        raise DownloadError(
            f"{address}: {how} {target[:120]}, from https to plain http; it was not followed"
        )
    return target


def _join(before: str, target: str) -> str:
    try:
        return urljoin(before, target)
    except ValueError:  # invalid brackets; rejected in the next step
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
    """The version of a remote file, as announced by the server.

    Attributes:
        address: The requested address.
        etag: Strong ETag, or None.
        modified: Modification time as text, or None.
        total: Length in bytes, or None.
    """

    address: str
    etag: str | None = None
    modified: str | None = None
    total: int | None = None

    @property
    def validator(self) -> str | None:
        """The value of `If-Range`, which makes the server send a changed file completely."""
        return self.etag or self.modified


class Partial:
    """An incomplete download `NAME.part`, and its version in `NAME.part.json`.

    Args:
        target: The path of the complete file.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._facts = target.with_name(f"{target.name}.part.json")

    @property
    def size(self) -> int:
        """Number of downloaded bytes."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, address: str) -> Version | None:
        """Return the version of the downloaded bytes, or None if unknown or of another address."""
        try:
            version = Version(**json.loads(self._facts.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return version if version.address == address else None

    def begin(self, version: Version) -> None:
        """Remove the downloaded bytes and store the version of the new ones.

        Raises:
            WriteError: If the folder cannot be written.
        """
        self.discard()
        replace_text(self._facts, json.dumps(asdict(version)))

    def discard(self) -> None:
        """Remove the downloaded bytes.

        Raises:
            WriteError: If they cannot be removed.
        """
        with as_write_error(self.path, option=DATA_DIR):
            self.path.unlink(missing_ok=True)
            self._facts.unlink(missing_ok=True)

    @contextlib.contextmanager
    def append(self) -> Iterator[int]:
        """Open the file for appending and yield its descriptor.

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
        """Append bytes.

        Raises:
            WriteError: If they cannot be written. The file stays for the next attempt.
        """
        with as_write_error(self.path, option=DATA_DIR):
            write_all(descriptor, data)

    def finish(self) -> Path:
        """Flush the file to disk and rename it to its final name.

        Raises:
            WriteError: If this fails.
        """
        with as_write_error(self._target, option=DATA_DIR):
            sync_file(self.path)
            self.path.replace(self._target)
            self._facts.unlink(missing_ok=True)
            sync_folder(self._target.parent)
        return self._target
