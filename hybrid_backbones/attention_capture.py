"""Capture the attention weights of a network without changing it.

Networks call `scaled_dot_product_attention`, which does not return weights. `capture_attention`
intercepts these calls and passes on queries, keys and bias, from which the weights are computed
exactly and on request only.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hybrid_backbones.attention_geometry import AttentionGeometry, find_attention_geometry
from hybrid_backbones.backbone import Backbone


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """One attention of one forward pass, with G groups (such as windows) that attend separately.

    Attributes:
        name: Dotted name of the attention module.
        queries: (N, G, heads, Q, D).
        keys: (N, G, heads, K, D).
        bias: Added to the scores, (N, G, heads, Q, K), or None.
        scale: Factor of the products of queries and keys.
        query_positions: Centers of the queries, (G, Q, 2): y and x in pixels of the image; NaN if a
            query has no position in the image: class tokens, padding.
        key_positions: The same of the keys, (G, K, 2).
    """

    name: str
    queries: Tensor
    keys: Tensor
    bias: Tensor | None
    scale: float
    query_positions: Tensor
    key_positions: Tensor

    def weights(self, rows: slice = slice(None)) -> Tensor:
        """Compute the weights (N, G, heads, rows, K) of some queries; they sum to 1 over K."""
        scores = self.queries[..., rows, :] @ self.keys.transpose(-2, -1) * self.scale
        if self.bias is not None:
            scores = scores + self.bias[..., rows, :]
        return scores.softmax(-1)


Observer = Callable[[AttentionCall], None]


@contextmanager
def capture_attention(model: nn.Module, observer: Observer) -> Iterator[None]:
    """Call an observer for every attention between image positions until the context ends.

    Attention without positions on both sides is skipped: the random features of performers, which
    have no weights; the tokens of Mobile-Former; MoA's attention between windows in the official
    layout, which mixes the positions.

    Args:
        model: A backbone, or a network that contains one.
        observer: Called for each attention, in the order in which the network runs.
    """
    listener = _Listener(observer)
    with ExitStack() as stack:
        for prefix, backbone in model.named_modules():
            if not isinstance(backbone, Backbone):
                continue
            for name, module in backbone.named_modules():
                full = ".".join(part for part in (prefix, name) if part)
                stride = find_stride(backbone, name)
                enter = partial(listener.enter, full, stride)
                stack.callback(module.register_forward_pre_hook(enter).remove)
                leave = module.register_forward_hook(listener.leave, always_call=True)
                stack.callback(leave.remove)
        stack.enter_context(listener)
        yield


def find_stride(backbone: Backbone, name: str) -> int:
    """Return the stride of the map that a module of a stage processes.

    A module that belongs to no named stage is in the last one, whose map is computed by another
    module (a norm or an expansion).
    """
    levels = [info for info in backbone.feature_info if name.startswith(f"{info.module}.")]
    return (levels or backbone.feature_info)[-1].stride


class _Listener(TorchFunctionMode):
    """Tracks the running module and intercepts its attention."""

    def __init__(self, observer: Observer) -> None:
        super().__init__()
        self._observer = observer
        self._running: list[tuple[str, int, AttentionGeometry | None]] = []

    def enter(self, name: str, stride: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        """Record that a module starts, with its geometry or that of the module around it."""
        around = self._running[-1][2] if self._running else None
        own = find_attention_geometry(module, inputs)
        self._running.append((name, stride, around if own is None else own))

    def leave(self, *_: object) -> None:
        """Record that the innermost running module ends."""
        self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention and self._running:
            name, stride, geometry = self._running[-1]
            if geometry is not None:
                call = _describe(name, stride, geometry, args=args, **(kwargs or {}))
                self._observer(call)
        return func(*args, **(kwargs or {}))


def _describe(
    name: str,
    stride: int,
    geometry: AttentionGeometry,
    *,
    args: tuple[Tensor, ...],
    attn_mask: Tensor | None = None,
    scale: float | None = None,
) -> AttentionCall:
    queries, keys = args[0].detach(), args[1].detach()
    bias = None
    if attn_mask is not None:
        wide = attn_mask.detach().expand(*queries.shape[:3], keys.shape[2])
        bias = geometry.divide(wide)
    return AttentionCall(
        name=name,
        queries=geometry.divide(queries),
        keys=geometry.divide(keys),
        bias=bias,
        scale=queries.shape[-1] ** -0.5 if scale is None else scale,
        query_positions=geometry.queries * stride,
        key_positions=geometry.keys * stride,
    )
