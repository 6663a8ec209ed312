"""Tables that depend on the size of a map, computed once for each size."""

from collections.abc import Callable, Hashable
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor

from hybrid_backbones.kernels.tracing import runs_eagerly
from hybrid_backbones.layers.export_shapes import may_differ

_Table = TypeVar("_Table", bound=Tensor | None)


class ShapeCache:
    """Caches the tables of the sizes that a module saw last.

    The tables are not part of a network's state: copies and pickles start empty, and each device
    and type has its own. Tracers, compilers and exporters never see a cached table, so that each
    graph contains its computation.
    """

    def __init__(self, limit: int = 4) -> None:
        """Cache tables of at most `limit` sizes; the oldest is removed first."""
        self._limit = limit
        self._cached: dict[Hashable, tuple[Any, Tensor | None]] = {}

    def __reduce__(self) -> tuple[type["ShapeCache"], tuple[int]]:
        """Copy and pickle it empty."""
        return ShapeCache, (self._limit,)

    def __len__(self) -> int:
        """Count the cached tables."""
        return len(self._cached)

    def get(
        self,
        size: tuple[int, ...],
        make: Callable[[], _Table],
        *,
        like: Tensor,
        source: Tensor | None = None,
    ) -> _Table:
        """Return the table of a size.

        Args:
            size: The numbers it depends on.
            make: Computes the table from those numbers, `source`, and the device and type of
                `like` only.
            like: A tensor of the device and type.
            source: Weights that the table is computed from, if any. It is computed again when one
                of them has changed. On a GPU it is computed each time, because the comparison would
                make the CPU wait.
        """
        if not _may_cache(like) or (source is not None and like.device.type != "cpu"):
            return make()
        key = (size, like.device, like.dtype)
        cached = self._cached.get(key)
        if cached is None or not _is_same(cached[1], source):
            # Made without gradient, but as a tensor that training may use too.
            with torch.inference_mode(mode=False), torch.no_grad():
                cached = (make(), None if source is None else source.detach().clone())
            self._cached[key] = cached
            # A list, because other threads may use the network too.
            for oldest in list(self._cached)[: -self._limit]:
                self._cached.pop(oldest, None)
        table: _Table = cached[0]
        return table

    def resize(
        self,
        parameter: Tensor,
        resized: Callable[[Tensor], Tensor],
        *,
        own: tuple[int, ...],
        size: tuple[int, ...],
    ) -> Tensor:
        """Return a learned table at another size: differentiable in training, cached otherwise.

        Args:
            parameter: The table.
            resized: Computes the table of `size` from the parameter.
            own: The numbers that the parameter's own size consists of.
            size: The same numbers of the result.

        Returns:
            The resized table; the parameter's values if both sizes are the same.
        """
        if torch.is_grad_enabled():
            return resized(parameter) if may_differ(size, own) else parameter
        # Without its gradient: an attention mask that requires one is not accepted by the CPU's
        # fused attention.
        table = parameter.detach()
        if not may_differ(size, own):
            return table
        return self.get(size, partial(resized, table), like=table, source=table)


def _is_same(cached: Tensor | None, source: Tensor | None) -> bool:
    return source is None or (cached is not None and torch.equal(cached, source))


def _may_cache(like: Tensor) -> bool:
    if not runs_eagerly(like):
        return False
    # The memory that a CUDA graph allocates belongs to the graph.
    return not (like.is_cuda and torch.cuda.is_current_stream_capturing())
