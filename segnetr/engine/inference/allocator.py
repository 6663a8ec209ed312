"""Freed memory that stays with the process, because the next pass of a network needs it again.

The C library gives large blocks back to the system as soon as they are freed, and gets them back
page by page, each one cleared and mapped when it is first touched. A small U-Net over one window of
256 x 256 pixels with 14 classes touches 3,600 new pages in a pass, which took more than half of its
time (benchmarks/README.md, Volumes); a training step of SegNetr on four images of 224 x 224 half
a million, a fifth of its time.
"""

import ctypes
import os
import sys

# Numbers of the settings in glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
# Blocks above this are mapped by themselves and given back at once: whole volumes, not features.
_LARGE_BLOCK = 128 << 20
# Holes between kept blocks are lost, so under a limit only blocks are kept that are small beside it
# and whose holes stay within what the estimate leaves. 1/128 of 2 GiB still holds the answer about
# four windows of 256 x 256 pixels with 14 classes.
_SHARE_OF_LIMIT = 128
# glibc before 2.34 takes no more.
_LARGE_BLOCK_ONCE = 32 << 20
_MOST_KEPT = 512 << 20
_USERS_OWN = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def tune_malloc(limit: int | None = None) -> bool:
    """Let this process keep up to 512 MiB that it freed, for what it asks for next.

    It changes no number. For a command that ends with its process, not for a library: the setting
    is of the whole process. Where the environment says how memory is handed out
    (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`, `GLIBC_TUNABLES`), that stands.

    Args:
        limit: Bytes the process may use at most; only blocks that are small beside it are kept.

    Returns:
        Whether it is so now; False outside of Linux with glibc.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _USERS_OWN):
        return False
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    set_option.argtypes, set_option.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    large = _LARGE_BLOCK if limit is None else min(_LARGE_BLOCK, limit // _SHARE_OF_LIMIT)
    sizes = (large, min(large, _LARGE_BLOCK_ONCE))
    blocks = any(set_option(_MMAP_THRESHOLD, size) for size in sizes)
    return blocks and bool(set_option(_TRIM_THRESHOLD, _MOST_KEPT))
