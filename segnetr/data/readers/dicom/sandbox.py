"""Work on files that nobody vouches for, in a child process with limits of memory and time.

Parsers of rich formats can be made to eat all memory or to run for ever (CVE-2026-3650 is one of
them). The child limits itself before it opens a file; the parent ends it when its time is
over. A request is one line of JSON, followed by bytes; a reply is one line of JSON, followed by
bytes whose number it says. A refusal is one line of JSON on the error stream.
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

Reply: TypeAlias = tuple[Mapping[str, Any], Iterable[bytes]]
"""What a child answers: plain data, and bytes piece by piece."""

_REFUSED = 3
_MOST_REPLY_BYTES = 2**26
_CPU_TIME_SIGNAL = 24  # SIGXCPU, which not every system has
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child may use.

    Attributes:
        memory_bytes: Address space. Systems without such a limit (Windows) keep to the time.
        seconds: Time on the clock, and on the processor.
    """

    memory_bytes: int
    seconds: int


def ask_child(
    module: str,
    request: Mapping[str, Any],
    *,
    path: Path,
    limits: Limits,
    take: Callable[[Mapping[str, Any], IO[bytes]], Any],
    payload: bytes = b"",
) -> Any:
    """Run a module that calls `answer_parent`, and take its reply.

    Args:
        module: The module's dotted name.
        request: Plain data for it.
        path: What is worked on, for messages.
        limits: Memory and time of the child.
        take: Gets the reply's data and the stream of its bytes, and gives the result, not None;
            raises EOFError if there are too few bytes.
        payload: Bytes for the child.

    Returns:
        What `take` gives.

    Raises:
        ReadError: If the child refuses, dies, or passes a limit; the message says which.
    """
    line = json.dumps({**request, "limits": [limits.memory_bytes, limits.seconds]}) + "\n"
    # -P: a folder of files from strangers is no place to import modules from.
    command = [sys.executable, "-P", "-m", module]
    environment = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1")}
    late = threading.Event()
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment,
        ) as child,
        _ended_after(child, limits.seconds, late),
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died: its complaint says more
            child.stdin.write(line.encode())
            child.stdin.write(payload)
        with contextlib.suppress(BrokenPipeError):  # closing writes what still waits
            child.stdin.close()
        result = _take_reply(child.stdout, take)
        child.stdout.close()
        code = child.wait()
        complaints.seek(0)
        complaint = complaints.read()
    if late.is_set() or (code != 0 and code == -_CPU_TIME_SIGNAL):
        raise ReadError(path, f"reading it took longer than {limits.seconds} s")
    if code != 0 or result is None:
        raise _explain(path, code, complaint, limits)
    return result


def answer_parent(work: Callable[[Mapping[str, Any], IO[bytes]], Reply]) -> None:
    """Limit this process, do the work that is asked for, and answer.

    Args:
        work: Gets the request and the stream of its bytes; refuses by `ReadError`.
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
    """Limit the address space and the processor time of this process, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    # Not above what somebody else has set already.
    for kind, wanted in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, seconds)):
        _, most = resource.getrlimit(kind)
        limit = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(kind, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(complaint: Mapping[str, Any]) -> None:
    sys.stderr.write("\n" + json.dumps(complaint) + "\n")
    sys.stderr.flush()
    # At once: what waits in the buffers is half an answer.
    os._exit(_REFUSED)


@contextlib.contextmanager
def _ended_after(
    child: "subprocess.Popen[bytes]", seconds: int, late: threading.Event
) -> Iterator[None]:
    def end() -> None:
        late.set()
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
    """Give the result, or None for half a reply: why it is half is in the complaint."""
    line = stream.readline(_MOST_REPLY_BYTES)
    if not line.endswith(b"\n"):
        return None
    try:
        return take(json.loads(line), stream)
    except EOFError:
        return None


def _explain(path: Path, code: int, complaint: bytes, limits: Limits) -> ReadError:
    """Turn the end of a child into one line."""
    mebibytes = limits.memory_bytes >> 20
    last = complaint.decode("utf-8", "replace").strip().rpartition("\n")[2]
    if code == _REFUSED:
        told = json.loads(last)
        if "memory" not in told:
            return ReadError(_as_given(path, Path(told["path"])), told["reason"])
        return ReadError(path, f"reading it needs more than {mebibytes} MiB of memory")
    # The second is what numpy's library of linear algebra says.
    if last.startswith(("MemoryError", "OpenBLAS error: Memory allocation")):
        return ReadError(path, f"reading it needs more than {mebibytes} MiB of memory")
    return ReadError(path, f"its reader ended with code {code}: {' '.join(last.split())[:160]}")


def _as_given(path: Path, told: Path) -> Path:
    """Name a file below a path as the path was given: a child is told whole paths."""
    whole = path.absolute()
    return path / told.relative_to(whole) if told.is_relative_to(whole) else told
