"""Downloads from a server on this machine that breaks off, lies, and leads astray."""

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
    """A server whose every answer is a list of what to do; see `Answer`."""

    address: str
    answers: list["Answer"] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


@dataclass
class Answer:
    """One answer.

    Attributes:
        status: None: 206 where a range is asked for, else 200.
        data: What the file holds.
        sends: Bytes of the body after which the connection is closed.
        length: The length that is claimed; None: the right one; negative: none is claimed.
        obeys: Whether ranges are obeyed.
        checks: Whether `If-Range` is obeyed.
        shift: Added to the start of a range, in word and deed.
        headers: Further headers.
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
        answer = plan.answers.pop(0) if len(plan.answers) > 1 else plan.answers[0]
        wanted, data, total = self.headers.get("Range"), answer.data, len(answer.data)
        unchanged = self.headers.get("If-Range") in {None, answer.headers.get("ETag")}
        unchanged = unchanged or not answer.checks
        status, extra = answer.status or 200, {}
        if wanted and answer.obeys and unchanged and answer.status is None:
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) + answer.shift
            status, data = (206, data[start:]) if start < total else (416, b"")
            place = f"{start}-{total - 1}" if data else "*"
            extra = {"Content-Range": f"bytes {place}/{total}"}
        self.send_response(status)
        for name, value in {**answer.headers, **extra}.items():
            self.send_header(name, value)
        length = len(data) if answer.length is None else answer.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data[: answer.sends])
        self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


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
    def run(*answers: Answer, rules: DownloadRules = RULES, report=None, **facts: object) -> Path:
        server.answers = list(answers)
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
def test_file_arrives_whole_and_nothing_else_stays(
    fetch, server, tmp_path, facts: dict[str, object], length: int | None
):
    seen: list[tuple[int, int]] = []
    path = fetch(Answer(length=length), report=lambda *pair: seen.append(pair), **facts)
    assert path.read_bytes() == BYTES
    assert left(tmp_path) == {"set.zip"}
    assert seen[-1] == (len(BYTES), len(BYTES))
    assert "Range" not in server.requests[0]
    assert server.requests[0]["Accept-Encoding"] == "identity"


def test_file_that_is_there_is_not_fetched_again(fetch, server):
    fetch(Answer(), sha256=SHA256)
    assert fetch(Answer(status=500), sha256=SHA256).read_bytes() == BYTES
    assert len(server.requests) == 1


def test_file_that_is_there_and_wrong_is_fetched_again(fetch, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip").write_bytes(OTHER)
    assert fetch(Answer(), sha256=SHA256).read_bytes() == BYTES


@pytest.mark.parametrize("facts", [{}, {"sha256": SHA256}])
def test_broken_connection_is_resumed_where_it_broke(fetch, server, facts: dict[str, object]):
    path = fetch(Answer(sends=100_000), Answer(sends=50_000), Answer(), **facts)
    assert path.read_bytes() == BYTES
    assert [request.get("Range") for request in server.requests] == [
        None,
        "bytes=100000-",
        "bytes=150000-",
    ]
    assert server.requests[1]["If-Range"] == '"one"'


def test_next_run_goes_on_where_the_last_one_broke_off(fetch, server, tmp_path):
    rules = DownloadRules(timeout=5, tries=1, connections=1, pause=0)
    with pytest.raises(DownloadError, match=r"are kept in .*set\.zip\.part: the same command"):
        fetch(Answer(sends=200_000), rules=rules, sha256=SHA256)
    assert left(tmp_path) == {"set.zip.part", "set.zip.part.json"}
    assert fetch(Answer(), sha256=SHA256).read_bytes() == BYTES
    assert server.requests[1]["Range"] == "bytes=200000-"
    assert left(tmp_path) == {"set.zip"}


def test_run_killed_after_the_last_byte_asks_for_nothing(fetch, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip.part").write_bytes(BYTES)
    facts = {"address": server.address, "etag": '"one"', "modified": None, "total": len(BYTES)}
    (tmp_path / "got/set.zip.part.json").write_text(json.dumps(facts))
    assert fetch(Answer(status=500), sha256=SHA256).read_bytes() == BYTES
    assert not server.requests


def test_bytes_of_another_address_are_not_taken(fetch, server, tmp_path):
    (tmp_path / "got").mkdir()
    (tmp_path / "got/set.zip.part").write_bytes(OTHER[:1000])
    facts = {"address": "http://127.0.0.1/else", "etag": '"one"', "total": len(BYTES)}
    (tmp_path / "got/set.zip.part.json").write_text(json.dumps(facts))
    assert fetch(Answer()).read_bytes() == BYTES
    assert "Range" not in server.requests[0]


def test_server_that_ignores_ranges_sends_the_whole_file(fetch):
    path = fetch(Answer(sends=100_000), Answer(obeys=False), sha256=SHA256)
    assert path.read_bytes() == BYTES


@pytest.mark.parametrize("facts", [{}, {"sha256": hashlib.sha256(OTHER).hexdigest()}])
def test_file_that_changed_between_two_parts_is_fetched_whole(fetch, server, facts: dict):
    changed = Answer(data=OTHER, headers={"ETag": '"two"'})
    assert fetch(Answer(sends=100_000), changed, **facts).read_bytes() == OTHER
    assert "Range" in server.requests[1]


@pytest.mark.parametrize("tag", [{"ETag": '"two"'}, {}], ids=["says so", "says nothing"])
def test_server_that_mixes_two_versions_is_found_out(fetch, server, tag: dict[str, str]):
    """It sends a piece of the new file though `If-Range` names the old one."""
    mixed = Answer(data=OTHER, headers=tag, checks=False)
    sha256 = hashlib.sha256(OTHER).hexdigest()
    assert (
        fetch(Answer(sends=100_000), mixed, Answer(data=OTHER), sha256=sha256).read_bytes() == OTHER
    )
    assert "Range" not in server.requests[-1]


def test_file_without_a_tag_and_without_a_hash_is_never_pieced_together(fetch, server):
    fetch(Answer(sends=100_000, headers={}), Answer(headers={}))
    assert all("Range" not in request for request in server.requests)


def test_weak_tag_proves_nothing(fetch, server):
    weak = {"ETag": 'W/"one"'}
    fetch(Answer(sends=100_000, headers=weak), Answer(headers=weak))
    assert all("Range" not in request for request in server.requests)


def test_time_of_change_is_taken_where_there_is_no_tag(fetch, server):
    headers = {"Last-Modified": "Sat, 21 Nov 2026 12:00:00 GMT"}
    path = fetch(Answer(sends=100_000, headers=headers), Answer(obeys=False, headers=headers))
    assert path.read_bytes() == BYTES
    assert server.requests[1]["If-Range"] == headers["Last-Modified"]


def test_piece_from_another_place_is_thrown_away(fetch):
    path = fetch(Answer(sends=100_000), Answer(shift=-7), Answer())
    assert path.read_bytes() == BYTES


def test_server_that_never_gives_the_piece_asked_for_is_given_up(fetch, server):
    answers = [Answer(sends=100_000), Answer(shift=-7)] * 20
    with pytest.raises(DownloadError, match="another piece than the one asked for"):
        fetch(*answers)
    assert len(server.requests) < 12


def test_length_claimed_too_small_is_found_by_the_hash(fetch, tmp_path):
    with pytest.raises(DownloadError, match="has the sha256") as caught:
        fetch(Answer(length=100_000), sha256=SHA256)
    assert "--source" in str(caught.value)
    assert left(tmp_path) == set()


@pytest.mark.parametrize("obeys", [True, False])
def test_length_claimed_too_large_does_not_spoil_a_file_with_the_right_hash(fetch, obeys: bool):
    path = fetch(Answer(length=400_000), Answer(length=None if obeys else 400_000, obeys=obeys),
                 sha256=SHA256)  # fmt: skip
    assert path.read_bytes() == BYTES


def test_length_claimed_too_large_is_given_up_without_a_hash(fetch, server):
    with pytest.raises(DownloadError, match="broke off after 300000 of 400000 bytes"):
        fetch(Answer(length=400_000, obeys=False))
    assert len(server.requests) < 6


def test_size_that_is_not_the_official_one_is_refused_before_a_byte_is_kept(fetch, tmp_path):
    with pytest.raises(DownloadError, match=r"announces 300000 bytes, the official file has 5"):
        fetch(Answer(), size=5)
    assert left(tmp_path) == set()


def test_body_longer_than_the_official_size_is_cut_short(fetch, tmp_path):
    with pytest.raises(DownloadError, match="sends more than"):
        fetch(Answer(length=-1), size=1000)
    assert left(tmp_path) == set()


def test_file_without_a_published_size_has_a_limit(fetch):
    rules = DownloadRules(timeout=5, tries=1, pause=0, most_bytes=1000)
    with pytest.raises(DownloadError, match="announces 293 KiB"):
        fetch(Answer(), rules=rules)
    with pytest.raises(DownloadError, match="sends more than 1000 B"):
        fetch(Answer(length=-1), rules=rules)


def test_wrong_bytes_are_removed_and_named(fetch, server, tmp_path):
    with pytest.raises(DownloadError, match=f"sha256 {hashlib.sha256(OTHER).hexdigest()}"):
        fetch(Answer(data=OTHER), sha256=SHA256)
    assert left(tmp_path) == set()
    assert len(server.requests) == 1


def test_wrong_bytes_of_a_pieced_file_are_fetched_once_more(fetch, server):
    torn = bytes(100_000) + BYTES[100_000:]
    path = fetch(Answer(data=torn, sends=100_000), Answer(), Answer(), sha256=SHA256)
    assert path.read_bytes() == BYTES
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "said"), [(404, "no such file"), (410, "no such file"), (403, "not given")]
)
def test_missing_file_is_one_line_and_one_request(fetch, server, status: int, said: str):
    with pytest.raises(DownloadError, match=rf"{said} \(status {status}\)"):
        fetch(Answer(status=status))
    assert len(server.requests) == 1


def test_broken_server_is_asked_again_and_then_given_up(fetch, server):
    assert fetch(Answer(status=500), Answer(status=503), Answer()).read_bytes() == BYTES
    fetch(Answer()).unlink()
    server.requests.clear()
    with pytest.raises(DownloadError, match="status 500"):
        fetch(Answer(status=500))
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
def test_redirect_to_anything_but_http_is_not_followed(fetch, server, tmp_path, target: str):
    with pytest.raises(DownloadError, match=r"redirects to .* was not followed"):
        fetch(Answer(status=302, data=b"", headers={"Location": target}))
    assert len(server.requests) == 1
    assert left(tmp_path) == set()


def test_redirect_from_https_to_http_is_not_followed():
    with pytest.raises(DownloadError, match="from https to plain http"):
        check_address("http://127.0.0.1/a", "https://127.0.0.1/a", before="https://127.0.0.1/a")


def test_redirects_are_followed_and_end(fetch, server):
    there = Answer(status=302, data=b"", headers={"Location": "/elsewhere.zip"})
    assert fetch(there, there, Answer()).read_bytes() == BYTES
    server.requests.clear()
    with pytest.raises(DownloadError, match="redirects more than 5 times"):
        fetch(there, sha256="0" * 64)
    assert len(server.requests) == 6


def test_redirect_to_nowhere_is_one_line(fetch):
    with pytest.raises(DownloadError, match="redirects to nowhere"):
        fetch(Answer(status=302, data=b"", headers={}))


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a/b", "/etc/passwd", ""])
def test_only_http_is_ever_asked(address: str):
    with pytest.raises(DownloadError, match="no http or https address"):
        open_address(address, headers={}, timeout=1)


def test_packed_answer_is_refused(fetch):
    with pytest.raises(DownloadError, match="sends compressed data"):
        fetch(Answer(headers={"Content-Encoding": "gzip"}))


def test_server_that_hangs_is_given_up(server, tmp_path):
    rules = DownloadRules(timeout=0.05, tries=2, pause=0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        archive = Archive(name="a", address=f"http://127.0.0.1:{silent.getsockname()[1]}/a")
        with pytest.raises(DownloadError, match="nothing came any more"):
            download(archive, tmp_path, rules=rules)


def test_server_that_drips_is_given_up(fetch):
    rules = DownloadRules(timeout=5, tries=2, pause=0, window=0, least_bytes=1 << 30)
    with pytest.raises(DownloadError, match="sends too slowly"):
        fetch(Answer(), rules=rules)


def test_no_server_at_all_is_one_line(tmp_path):
    archive = Archive(name="a", address="http://127.0.0.1:1/a")
    with pytest.raises(DownloadError, match="Connection refused"):
        download(archive, tmp_path, rules=DownloadRules(timeout=1, tries=2, pause=0))


def test_full_disk_keeps_what_came(fetch, tmp_path, monkeypatch):
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
        fetch(Answer(), sha256=SHA256)
    assert (tmp_path / "got/set.zip.part").stat().st_size == calls[0]
    monkeypatch.undo()
    assert fetch(Answer(), sha256=SHA256).read_bytes() == BYTES


def test_disk_without_room_is_named_before_a_byte_is_fetched(fetch, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("segnetr.storage.disk_errors.shutil.disk_usage", lambda _: usage)
    with pytest.raises(WriteError, match=r"fetching set\.zip needs 293 KiB"):
        fetch(Answer())
