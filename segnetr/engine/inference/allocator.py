"""Tune malloc so that freed memory stays with the process for the next forward pass.

The C library returns large blocks to the system as soon as they are freed. New blocks arrive page
by page, and each page is cleared and mapped on first use. A small U-Net on a window of 256 x 256
pixels with 14 classes touches 3,600 new pages in a pass, which took more than half of its time
(benchmarks/README.md, Volumes). A training step of SegNetr on four images of 224 x 224 touches half
a million, a fifth of its time.
"""

import ctypes
import os
import sys

# Option numbers from glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
# Larger blocks are mapped separately and returned at once: whole volumes, not feature maps.
_LARGE_BLOCK = 128 << 20
# Gaps between kept blocks are lost. With a limit, only blocks much smaller than the limit are kept,
# so that the gaps stay within the slack of the estimate. 1/128 of 2 GiB is still enough for the
# output for four windows of 256 x 256 pixels with 14 classes.
_SHARE_OF_LIMIT = 128
# Largest value that glibc before 2.34 accepts.
_LARGE_BLOCK_OLD_GLIBC = 32 << 20
_MAX_KEPT = 512 << 20
_USER_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def tune_malloc(limit: int | None = None) -> bool:
    """Let this process keep up to 512 MiB of freed memory for later allocations.

    Does not affect results. The setting is process-wide, so call it from the CLI only, never from
    library code. Settings in the environment (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`,
    `GLIBC_TUNABLES`) take precedence.

    Args:
        limit: Memory limit of the process in bytes. Only much smaller blocks are kept.

    Returns:
        Whether the setting was applied. False outside of Linux with glibc.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _USER_SETTINGS):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    set_option.argtypes, set_option.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    large = _LARGE_BLOCK if limit is None else min(_LARGE_BLOCK, limit // _SHARE_OF_LIMIT)
    sizes = (large, min(large, _LARGE_BLOCK_OLD_GLIBC))
    blocks = any(set_option(_MMAP_THRESHOLD, size) for size in sizes)
    return blocks and bool(set_option(_TRIM_THRESHOLD, _MAX_KEPT))
