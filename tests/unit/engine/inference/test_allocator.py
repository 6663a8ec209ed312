"""Memory that was freed stays with the process where that was asked for, and no further."""

import os
import subprocess
import sys

import pytest

from segnetr.engine.inference import allocator
from segnetr.engine.inference.allocator import tune_malloc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")

# Takes 16 MiB ten times over, writes to all of it, and says whether it was asked to keep them, and
# how many new pages it touched after the first time.
CHILD = """
import resource, sys
import numpy as np
from segnetr.engine.inference.allocator import tune_malloc

def count_pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

limit = int(sys.argv[1])
kept = tune_malloc(limit or None) if limit >= 0 else None
np.ones(1 << 24, dtype=np.uint8)
before = count_pages()
for _ in range(10):
    np.ones(1 << 24, dtype=np.uint8)
print(kept, count_pages() - before)
"""


def run_child(limit: int) -> tuple[str, int]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(limit)],
        capture_output=True,
        text=True,
        env=plain,
        check=True,
    )
    kept, pages = done.stdout.split()
    return kept, int(pages)


def test_what_was_freed_is_used_again_without_new_pages() -> None:
    kept, pages = run_child(0)
    if kept == "False":
        pytest.skip("this C library has no such setting")
    assert pages < 500
    # Pages of 4 KiB; with larger ones there is nothing to be gained.
    assert run_child(-1)[1] > 10 * pages


def test_blocks_that_are_large_beside_a_limit_are_given_back() -> None:
    kept, pages = run_child(4 << 30)
    if kept == "False":
        pytest.skip("this C library has no such setting")
    assert pages < 500
    assert run_child(1 << 30)[1] > 10 * pages


def test_setting_of_the_user_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    assert tune_malloc() is False


def test_system_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)

    class Library:
        """A C library that knows nothing of it."""

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: Library())
    assert tune_malloc() is False
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert tune_malloc() is False
