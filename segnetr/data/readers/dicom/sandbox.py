"""Parse untrusted files in a child process with limits on memory and time.

Hostile files can make parsers of complex formats use all memory or run forever (for example
CVE-2026-3650). The child limits itself before it opens a file, and the parent kills it after a
timeout. A request is one line of JSON followed by bytes, and so is a reply. An error is one line of
JSON on stderr.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from segnetr.errors import ReadError

ChildReply: TypeAlias = tuple[Mapping[str, Any], Iterable[bytes]]
"""The reply of a child: plain data, and chunks of bytes."""

_REFUSED = 3
_MOST_REPLY_BYTES = 2**26
_CPU_TIME_SIGNAL = 24  # SIGXCPU, which not every system has
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildLimits:
    """Limits of a child process.

    Attributes:
        memory_bytes: Address space. Not enforced on Windows.
        seconds: Wall-clock time and CPU time.
    """

    memory_bytes: int
    seconds: int


def ask_child(
    module: str,
    request: Mapping[str, Any],
    *,
    path: Path,
    limits: ChildLimits,
    take: Callable[[Mapping[str, Any], IO[bytes]], Any],
    payload: bytes = b"",
) -> Any:
    """Run a module that calls `answer_parent`, and return its result.

    Args:
        module: Dotted name of the module.
        request: Plain data for the child.
        path: The processed file, for messages.
        limits: Memory and time of the child.
        take: Converts the reply's data and byte stream to a result other than None. Raises EOFError
            if bytes are missing.
        payload: Bytes for the child.

    Returns:
        The result of `take`.

    Raises:
        ReadError: If the child reports an error, dies, or exceeds a limit.
    """
    line = json.dumps({**request, "limits": [limits.memory_bytes, limits.seconds]}) + "\n"
    # -P: never import modules from the folder of untrusted files.
    command = [sys.executable, "-P", "-m", module]
    environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
    timed_out = threading.Event()
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        ) as child,
        _ended_after(child, limits.seconds, timed_out),
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died; stderr has the reason
            child.stdin.write(line.encode())
            child.stdin.write(payload)
        with contextlib.suppress(BrokenPipeError):  # closing flushes buffered bytes
            child.stdin.close()
        result = _take_reply(child.stdout, take)
        child.stdout.close()
        code = child.wait()
        complaints.seek(0)
        complaint = complaints.read()
    if timed_out.is_set() or (code != 0 and code == -_CPU_TIME_SIGNAL):
        raise ReadError(path, f"reading it took longer than {limits.seconds} s")
    if code != 0 or result is None:
        raise _explain(path, code, complaint, limits)
    return result


def answer_parent(work: Callable[[Mapping[str, Any], IO[bytes]], ChildReply]) -> None:
    """Limit this process, run the request, and send the reply.

    Args:
        work: Receives the request and the stream of its bytes. May raise `ReadError`.
    """
    request = json.loads(sys.stdin.buffer.readline())
    memory_bytes, seconds = request.pop("limits")
    limit_process(memory_bytes, seconds)
    try:
        facts, pieces = work(request, sys.stdin.buffer)
        sys.stdout.buffer.write((json.dumps(facts) + "\n").encode())
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    except ReadError as error:
        _refuse({"path": str(error.path), "reason": error.reason})
    except MemoryError:
        _refuse({"memory": True})


def limit_process(memory_bytes: int, seconds: int) -> None:
    """Limit the address space and the CPU time of this process, if the system supports it."""
    if sys.platform == "win32":
        return
    import resource

    # Existing lower limits stay.
    for kind, wanted in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds)):
        _, most = resource.getrlimit(kind)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(complaint: Mapping[str, Any]) -> None:
    sys.stderr.write("\n" + json.dumps(complaint) + "\n")
    sys.stderr.flush()
    # Exit immediately, so that buffered parts of a reply are not sent.
    os._exit(_REFUSED)


@contextlib.contextmanager
def _ended_after(
    child: "subprocess.Popen[bytes]", seconds: int, timed_out: threading.Event
) -> Iterator[None]:
    def end() -> None:
        timed_out.set()
        child.kill()

    clock = threading.Timer(seconds, end)
    clock.start()
    try:
        yield
    except BaseException:
        child.kill()
        raise
    finally:
        clock.cancel()


def _take_reply(
    stream: IO[bytes], take: Callable[[Mapping[str, Any], IO[bytes]], Any]
) -> Any | None:
    """Return the result, or None for an incomplete reply. stderr has the reason."""
    line = stream.readline(_MOST_REPLY_BYTES)
    if not line.endswith(b"\n"):
        return None
    try:
        return take(json.loads(line), stream)
    except EOFError:
        return None


def _explain(path: Path, code: int, complaint: bytes, limits: ChildLimits) -> ReadError:
    """Convert the exit status of a child into one line."""
    mebibytes = limits.memory_bytes >> 20
    last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if code == _REFUSED:
        reported = json.loads(last)
        if "memory" not in reported:
            return ReadError(_as_given(path, Path(reported["path"])), reported["reason"])
        return ReadError(path, f"reading it needs more than {mebibytes} MiB of memory")
    # The second message is from numpy's linear algebra library.
    if last.startswith(("MemoryError", "OpenBLAS error: Memory allocation")):
        return ReadError(path, f"reading it needs more than {mebibytes} MiB of memory")
    return ReadError(path, f"its reader ended with code {code}: {' '.join(last.split())[:160]}")


def _as_given(path: Path, reported: Path) -> Path:
    """Return a file relative to the given path, since a child receives absolute paths."""
    absolute = path.absolute()
    if reported.is_relative_to(absolute):
        return path / reported.relative_to(absolute)
    return reported
