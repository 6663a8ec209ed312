"""Test downloads from a local server that disconnects, sends wrong data and redirects."""

import hashlib
import http.server
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from segnetr.data.download.download import DownloadRules, download
from segnetr.data.download.sources import Archive
from segnetr.data.download.transfer import check_address, open_address
from segnetr.errors import DownloadError, WriteError

BYTES = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
RULES = DownloadRules(timeout=5, tries=3, pause=0)


@dataclass
class Server:
    """A server that follows one scripted `Response` per request."""

    address: str
    responses: list["Response"] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Response:
    """A scripted response of the server.

    Attributes:
        status: HTTP status. None means 206 for a range request and 200 otherwise.
        data: Content of the file.
        sends: Number of bytes of the body that are sent before the connection is closed.
        length: Claimed Content-Length. None means the correct one, a negative number no header.
        obeys: Whether `Range` is respected.
        checks: Whether `If-Range` is respected.
        shift: Offset added to the start of a range, both in the header and in the data.
        headers: Additional headers.
    """

    status: int | None = None
    data: bytes = BYTES
    sends: int | None = None
    length: int | None = None
    obeys: bool = True
    checks: bool = True
    shift: int = 0
    headers: dict[str, str] = field(default_factory=lambda: {"ETag": '"one"'})


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        plan: Server = self.server.plan
        plan.requests.append(dict(self.headers))
        response = plan.responses.pop(0) if len(plan.responses) > 1 else plan.responses[0]
        wanted, data, total = self.headers.get("Range"), response.data, len(response.data)
        unchanged = self.headers.get("If-Range") in {None, response.headers.get("ETag")}
        unchanged = unchanged or not response.checks
        status, extra = response.status or 200, {}
        if wanted and response.obeys and unchanged and response.status is None:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + response.shift
            status, data = (206, data[start:]) if start < total else (416, b"")
            byte_range = f"{start}-{total - 1}" if data else "*"
            extra = {"Content-Range": f"bytes {byte_range}/{total}"}
        self.send_response(status)
        for name, value in {**response.headers, **extra}.items():
            self.send_header(name, value)
        length = len(data) if response.length is None else response.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data[: response.sends])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listener.plan = Server(f"http://127.0.0.1:{listener.server_address[1]}/set.zip")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield listener.plan
    listener.shutdown()
    thread.join()
    listener.server_close()


@pytest.fixture
def fetch(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def run(
        *responses: Response, rules: DownloadRules = RULES, report=None, **facts: object
    ) -> Path:
        server.responses = list(responses)
        archive = Archive(name="set.zip", address=server.address, **facts)
        return download(archive, tmp_path / "got", rules=rules, report=report)

    return run


SHA256 = hashlib.sha256(BYTES).hexdigest()
MD5 = hashlib.md5(BYTES, usedforsecurity=False).hexdigest()


def left(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "got").iterdir()}


@pytest.mark.parametrize(
    "facts", [{}, {"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256, "size": len(BYTES)}]
)
@pytest.mark.parametrize("length", [None, -1], ids=["length", "no length"])
def test_file_is_downloaded_completely_without_leftover_files(
    fetch, server, tmp_path, facts: dict[str, object], length: int | None
):
    seen: list[tuple[int, int]] = []
    path = fetch(Response(length=length), report=lambda *pair: seen.append(pair), **facts)
    assert path.read_bytes() == BYTES
    assert left(tmp_path) == {"set.zip"}
    assert seen[-1] == (len(BYTES), len(BYTES))
    assert "Range" not in server.requests[0]
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_existing_file_is_not_downloaded_again(fetch, server):
    fetch(Response(), sha256=SHA256)
    assert fetch(Response(status=500), sha256=SHA256).read_bytes() == BYTES
    assert len(server.requests) == 1


def test_existing_file_with_wrong_content_is_downloaded_again(fetch, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip").write_bytes(OTHER)
    assert fetch(Response(), sha256=SHA256).read_bytes() == BYTES


@pytest.mark.parametrize("facts", [{}, {"sha256": SHA256}])
def test_interrupted_download_resumes_at_the_last_byte(fetch, server, facts: dict[str, object]):
    path = fetch(Response(sends=100_000), Response(sends=50_000), Response(), **facts)
    assert path.read_bytes() == BYTES
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert server.requests[1]["If-Range"] == '"one"'


def test_next_run_resumes_an_interrupted_download(fetch, server, tmp_path):
    rules = DownloadRules(timeout=5, tries=1, connections=1, pause=0)
    with pytest.raises(DownloadError, match=r"are kept in .*set\.zip\.part: the same command"):
        fetch(Response(sends=200_000), rules=rules, sha256=SHA256)
    assert left(tmp_path) == {"set.zip.part", "set.zip.part.json"}
    assert fetch(Response(), sha256=SHA256).read_bytes() == BYTES
    assert server.requests[1]["Range"] == "bytes=200000-"
    assert left(tmp_path) == {"set.zip"}


def test_run_killed_after_the_last_byte_sends_no_request(fetch, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip.part").write_bytes(BYTES)
    facts = {"address": server.address, "etag": '"one"', "modified": None, "total": len(BYTES)}
    (tmp_path / "got/set.zip.part.json").write_text(json.dumps(facts))
    assert fetch(Response(status=500), sha256=SHA256).read_bytes() == BYTES
    assert not server.requests


def test_partial_download_from_another_url_is_not_used(fetch, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip.part").write_bytes(OTHER[:1000])
    facts = {"address": "http://127.0.0.1/else", "etag": '"one"', "total": len(BYTES)}
    (tmp_path / "got/set.zip.part.json").write_text(json.dumps(facts))
    assert fetch(Response()).read_bytes() == BYTES
    assert "Range" not in server.requests[0]


def test_download_succeeds_if_the_server_ignores_ranges(fetch):
    path = fetch(Response(sends=100_000), Response(obeys=False), sha256=SHA256)
    assert path.read_bytes() == BYTES


@pytest.mark.parametrize("facts", [{}, {"sha256": hashlib.sha256(OTHER).hexdigest()}])
def test_file_that_changed_during_the_download_is_downloaded_from_the_start(
    fetch, server, facts: dict
):
    changed = Response(data=OTHER, headers={"ETag": '"two"'})
    assert fetch(Response(sends=100_000), changed, **facts).read_bytes() == OTHER
    assert "Range" in server.requests[1]


@pytest.mark.parametrize("tag", [{"ETag": '"two"'}, {}], ids=["says so", "says nothing"])
def test_mixture_of_two_file_versions_is_detected(fetch, server, tag: dict[str, str]):
    """The server sends a range of the new file although `If-Range` names the old one."""
    mixed = Response(data=OTHER, headers=tag, checks=False)
    sha256 = hashlib.sha256(OTHER).hexdigest()
    assert (
        fetch(Response(sends=100_000), mixed, Response(data=OTHER), sha256=sha256).read_bytes()
        == OTHER
    )
    assert "Range" not in server.requests[-1]


def test_file_without_etag_and_hash_is_never_resumed(fetch, server):
    fetch(Response(sends=100_000, headers={}), Response(headers={}))
    assert all("Range" not in request for request in server.requests)


def test_weak_etag_is_not_used_to_resume(fetch, server):
    weak = {"ETag": 'W/"one"'}
    fetch(Response(sends=100_000, headers=weak), Response(headers=weak))
    assert all("Range" not in request for request in server.requests)


def test_last_modified_is_used_if_there_is_no_etag(fetch, server):
    headers = {"Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT"}
    path = fetch(Response(sends=100_000, headers=headers), Response(obeys=False, headers=headers))
    assert path.read_bytes() == BYTES
    assert server.requests[1]["If-Range"] == headers["Last-Modified"]


def test_range_with_a_wrong_start_is_discarded(fetch):
    path = fetch(Response(sends=100_000), Response(shift=-7), Response())
    assert path.read_bytes() == BYTES


def test_download_fails_if_the_server_never_sends_the_requested_range(fetch, server):
    responses = [Response(sends=100_000), Response(shift=-7)] * 20
    with pytest.raises(DownloadError, match="another piece than the one asked for"):
        fetch(*responses)
    assert len(server.requests) < 12


def test_too_small_content_length_is_detected_by_the_hash(fetch, tmp_path):
    with pytest.raises(DownloadError, match="has the sha256") as caught:
        fetch(Response(length=100_000), sha256=SHA256)
    assert "--source" in str(caught.value)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("obeys", [True, False])
def test_too_large_content_length_is_ignored_if_the_hash_matches(fetch, obeys: bool):
    path = fetch(Response(length=400_000), Response(length=None if obeys else 400_000, obeys=obeys),
                 sha256=SHA256)  # fmt: skip
    assert path.read_bytes() == BYTES


def test_too_large_content_length_is_an_error_without_a_hash(fetch, server):
    with pytest.raises(DownloadError, match="broke off after 300000 of 400000 bytes"):
        fetch(Response(length=400_000, obeys=False))
    assert len(server.requests) < 6


def test_unexpected_file_size_is_rejected_before_writing_data(fetch, tmp_path):
    with pytest.raises(DownloadError, match=r"announces 300000 bytes, the official file has 5"):
        fetch(Response(), size=5)
    assert left(tmp_path) == set()


def test_body_longer_than_the_official_size_is_not_read_further(fetch, tmp_path):
    with pytest.raises(DownloadError, match="sends more than"):
        fetch(Response(length=-1), size=1000)
    assert left(tmp_path) == set()


def test_file_without_a_published_size_has_a_limit(fetch):
    rules = DownloadRules(timeout=5, tries=1, pause=0, most_bytes=1000)
    with pytest.raises(DownloadError, match="announces 293 KiB"):
        fetch(Response(), rules=rules)
    with pytest.raises(DownloadError, match="sends more than 1000 B"):
        fetch(Response(length=-1), rules=rules)


def test_file_with_a_wrong_hash_is_removed_and_named(fetch, server, tmp_path):
    with pytest.raises(DownloadError, match=f"sha256 {hashlib.sha256(OTHER).hexdigest()}"):
        fetch(Response(data=OTHER), sha256=SHA256)
    assert left(tmp_path) == set()
    assert len(server.requests) == 1


def test_resumed_file_with_a_wrong_hash_is_downloaded_once_more(fetch, server):
    corrupted = bytes(100_000) + BYTES[100_000:]
    path = fetch(Response(data=corrupted, sends=100_000), Response(), Response(), sha256=SHA256)
    assert path.read_bytes() == BYTES
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "message"), [(404, "no such file"), (410, "no such file"), (403, "not given")]
)
def test_missing_file_gives_a_one_line_error_after_one_request(
    fetch, server, status: int, message: str
):
    with pytest.raises(DownloadError, match=rf"{message} \(status {status}\)"):
        fetch(Response(status=status))
    assert len(server.requests) == 1


def test_server_errors_are_retried_a_limited_number_of_times(fetch, server):
    assert fetch(Response(status=500), Response(status=503), Response()).read_bytes() == BYTES
    fetch(Response()).unlink()
    server.requests.clear()
    with pytest.raises(DownloadError, match="status 500"):
        fetch(Response(status=500))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "ftp://127.0.0.1/a",
        "data:,a",
        "gopher://127.0.0.1/",
        "http://127.0.0.1/a b",
        "//[",
    ],
)
def test_redirect_to_another_scheme_than_http_is_rejected(fetch, server, tmp_path, target: str):
    with pytest.raises(DownloadError, match=r"redirects to .* was not followed"):
        fetch(Response(status=302, data=b"", headers={"Location": target}))
    assert len(server.requests) == 1
    assert left(tmp_path) == set()


def test_redirect_from_https_to_http_is_rejected():
    with pytest.raises(DownloadError, match="from https to plain http"):
        check_address("http://127.0.0.1/a", "https://127.0.0.1/a", before="https://127.0.0.1/a")


def test_redirects_are_followed_up_to_a_limit(fetch, server):
    there = Response(status=302, data=b"", headers={"Location": "/elsewhere.zip"})
    assert fetch(there, there, Response()).read_bytes() == BYTES
    server.requests.clear()
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(there, sha256="0" * 64)
    assert len(server.requests) == 6


def test_redirect_without_a_target_gives_a_one_line_error(fetch):
    with pytest.raises(DownloadError, match="redirects to nowhere"):
        fetch(Response(status=302, data=b"", headers={}))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a/b", "/etc/passwd", ""])
def test_urls_of_other_schemes_than_http_are_rejected(address: str):
    with pytest.raises(DownloadError, match="no http or https address"):
        open_address(address, headers={}, timeout=1)


def test_response_with_content_encoding_is_rejected(fetch):
    with pytest.raises(DownloadError, match="sends compressed data"):
        fetch(Response(headers={"Content-Encoding": "gzip"}))


def test_unresponsive_server_times_out(server, tmp_path):
    rules = DownloadRules(timeout=0.05, tries=2, pause=0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        archive = Archive(name="a", address=f"http://127.0.0.1:{silent.getsockname()[1]}/a")
        with pytest.raises(DownloadError, match="nothing came any more"):
            download(archive, tmp_path, rules=rules)


def test_very_slow_server_times_out(fetch):
    rules = DownloadRules(timeout=5, tries=2, pause=0, window=0, least_bytes=1 << 30)
    with pytest.raises(DownloadError, match="sends too slowly"):
        fetch(Response(), rules=rules)


def test_unreachable_server_gives_a_one_line_error(tmp_path):
    archive = Archive(name="a", address="http://127.0.0.1:1/a")
    with pytest.raises(DownloadError, match="Connection refused"):
        download(archive, tmp_path, rules=DownloadRules(timeout=1, tries=2, pause=0))


def test_full_disk_keeps_the_partial_download(fetch, tmp_path, monkeypatch):
    from segnetr.data.download import transfer as partial

    written = partial.write_all
    calls = []

    def fill(descriptor: int, data: bytes) -> None:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        written(descriptor, data)

    monkeypatch.setattr(partial, "write_all", fill)
    with pytest.raises(WriteError, match="No space left on device"):
        fetch(Response(), sha256=SHA256)
    assert (tmp_path / "got/set.zip.part").stat().st_size == calls[0]
    monkeypatch.undo()
    assert fetch(Response(), sha256=SHA256).read_bytes() == BYTES


def test_too_little_disk_space_is_reported_before_downloading(fetch, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("segnetr.storage.disk_errors.shutil.disk_usage", lambda _: usage)
    with pytest.raises(WriteError, match=r"fetching set\.zip needs 293 KiB"):
        fetch(Response())
