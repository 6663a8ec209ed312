"""The switch of all CPU kernels, and the sizes from which they are used.

The state belongs to the process, not to a thread: kernels also run in threads that autograd starts,
and compilers guard on plain attributes, so a function that was compiled with kernels is compiled
again inside `plain()`.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ENVIRONMENT_VARIABLE = "HYBRID_BACKBONES_PLAIN"


class _Settings:
    """The current state of the switch and the thresholds; see `configure`."""

    def __init__(self) -> None:
        self.is_plain = os.environ.get(ENVIRONMENT_VARIABLE, "0") not in ("", "0")
        # Measured on two cores: keeping the intermediate maps of a smaller map is faster. Those of
        # a larger one (four times as wide, several at once) outgrow the memory that the C library
        # keeps for reuse.
        self.large_map_bytes = 2 * 2**20
        # Below glibc's largest threshold for mapped memory (32 MiB), so that pages are reused, and
        # few enough for several tiles to fit the cache. Larger tiles use the threads better.
        self.tile_bytes = 14 * 2**20
        # Calling an operator costs about 30 microseconds, more than it saves on a smaller product.
        self.min_product_macs = 2**22


settings = _Settings()
_lock = threading.Lock()
_plain_contexts = 0
_was_plain = settings.is_plain


def is_plain() -> bool:
    """Return whether all kernels are switched off."""
    return settings.is_plain


@contextmanager
def plain() -> Iterator[None]:
    """Run the plain PyTorch modules instead of the CPU kernels, in this process.

    Results are the same up to rounding. Contexts may be nested, and may overlap in several threads:
    the kernels are back when the last context ends. Set `HYBRID_BACKBONES_PLAIN=1` in the
    environment to switch them off from the start.
    """
    _count_context(1)
    try:
        yield
    finally:
        _count_context(-1)


def _count_context(change: int) -> None:
    global _plain_contexts  # noqa: PLW0603
    with _lock:
        _plain_contexts += change
        settings.is_plain = _was_plain or _plain_contexts > 0


@contextmanager
def configure(
    *,
    large_map_bytes: int | None = None,
    tile_bytes: int | None = None,
    min_product_macs: int | None = None,
) -> Iterator[None]:
    """Change the sizes from which kernels are used, in this process, until the context ends.

    The defaults are measured. Tests lower them to run a kernel on a small input.

    Args:
        large_map_bytes: Size of an input map in bytes from which maps are recomputed in training
            instead of kept, and from which MBConv uses its training kernel. Default: 2 MiB.
        tile_bytes: Memory of the expanded maps that MBConv computes at a time. Default: 14 MiB.
        min_product_macs: Multiply-adds of a matrix product from which `torch.compile` is given
            oneDNN's product. Default: 2^22.
    """
    changes = {
        "large_map_bytes": large_map_bytes,
        "tile_bytes": tile_bytes,
        "min_product_macs": min_product_macs,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    before = {name: getattr(settings, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(settings, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(settings, name, value)
