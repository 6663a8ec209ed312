"""Tables that belong to one size of a map, made once for it and not at each forward pass."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

Table = TypeVar("Table", bound=Tensor | None)


class ShapeCache:
    """Keeps the tables of the sizes that a module saw last.

    They are no part of a network's state: copies and files of it start without any, other devices
    and types get their own. Tracers, compilers and exporters never see a kept table, so that each
    graph holds what makes it.
    """

    def __init__(self, limit: int = 4) -> None:
        """Keep tables of at most `limit` sizes; the oldest makes room."""
        self._limit = limit
        self._kept: dict[Hashable, tuple[Any, Tensor | None]] = {}

    def __reduce__(self) -> tuple[type["ShapeCache"], tuple[int]]:
        """Copy and pickle it empty."""
        return ShapeCache, (self._limit,)

    def __len__(self) -> int:
        """Count the sizes it has tables of."""
        return len(self._kept)

    def get(
        self,
        size: tuple[int, ...],
        make: Callable[[], Table],
        *,
        like: Tensor,
        source: Tensor | None = None,
    ) -> Table:
        """Give the table of a size.

        Args:
            size: The numbers it depends on.
            make: Makes it, from those numbers, `source`, and the device and type of `like` alone.
            like: Gives device and type.
            source: Weights that the table is made of, if any. It is made anew when one of them
                changed; on a GPU each time, where to ask would make the processor wait.
        """
        if not _may_keep(like) or (source is not None and like.device.type != "cpu"):
            return make()
        key = (size, like.device, like.dtype)
        kept = self._kept.get(key)
        if kept is None or not _is_same(kept[1], source):
            # Made without gradient but as a tensor that training may use too.
            with torch.inference_mode(mode=False), torch.no_grad():
                kept = (make(), None if source is None else source.detach().clone())
            self._kept[key] = kept
            # A list, as other threads may use the network too.
            for oldest in list(self._kept)[: -self._limit]:
                self._kept.pop(oldest, None)
        table: Table = kept[0]
        return table


def _is_same(kept: Tensor | None, source: Tensor | None) -> bool:
    return source is None or (kept is not None and torch.equal(kept, source))


def _may_keep(like: Tensor) -> bool:
    # First of all: a tracer may not ask the rest.
    if torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export():
        return False
    # What passes tracers and fake tensors would be none outside of them; what a CUDA graph
    # allocates is its own.
    if type(like) is not Tensor or torch._C._get_tracing_state():
        return False
    if _get_current_dispatch_mode() is not None:
        return False
    return not (like.is_cuda and torch.cuda.is_current_stream_capturing())
