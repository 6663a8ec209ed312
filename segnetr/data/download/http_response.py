"""One request over http or https, with redirects that are looked at before they are followed."""

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from segnetr import __version__
from segnetr.errors import DownloadError

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
