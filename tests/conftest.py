"""What all tests share: no network, drawn or real data, quiet and repeatable surroundings."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Test processes side by side (pytest -n 2) take one thread each: threads of two processes that wait
# for each other on the same two cores make a test of half a second one of minutes. The process that
# starts them sets nothing, as they would inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to anywhere but this machine."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        local = isinstance(address, (str, bytes)) or (
            isinstance(address, tuple) and address[0] in {"127.0.0.1", "::1", "localhost"}
        )
        if not local:
            raise RuntimeError(f"a test reached for the network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True, scope="session")
def _in_the_foreground() -> Iterator[None]:
    """Take SIGINT as a program in the foreground does, and so do processes started by tests.

    A script that puts pytest into the background has it ignored, and what it starts as well.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Keep the user's cache folder out of the tests."""
    monkeypatch.setenv("SEGNETR_HOME", str(tmp_path_factory.getbasetemp() / "segnetr-home"))
    monkeypatch.delenv("SEGNETR_RUNS", raising=False)


@pytest.fixture(autouse=True)
def _forgetful_compiler() -> Iterator[None]:
    """Let no test inherit the shapes another one compiled: the compiler then guesses new ones."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real excerpts, or a skip where it is not on this machine."""
    folder = Path(os.environ.get("SEGNETR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data on this machine (set SEGNETR_DATA)")
    return folder
