"""Fixtures for all tests: no network, real data if present, a private cache."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# A busy machine must not fail a test: nothing here asserts on seconds.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
# Parallel test processes (pytest -n 2) use one thread each: threads of two processes that wait for
# each other on the same two cores turn half a second into minutes. The parent process sets nothing
# because the workers would inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark exhaustive tests as slow, too."""
    for item in items:
        if item.get_closest_marker("exhaustive") is not None:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines."""
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
    """Handle SIGINT as a foreground program does.

    A script that starts pytest in the background ignores SIGINT, and child processes inherit that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Use a temporary cache folder."""
    monkeypatch.setenv("SEGNETR_HOME", str(tmp_path_factory.getbasetemp() / "segnetr-home"))
    monkeypatch.delenv("SEGNETR_RUNS", raising=False)


@pytest.fixture(autouse=True)
def _forgetful_compiler() -> Iterator[None]:
    """Reset the compiler: shapes compiled by one test change how it treats the next one."""
    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data, or skip the test if there is none."""
    folder = Path(os.environ.get("SEGNETR_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data on this machine (set SEGNETR_DATA)")
    return folder
