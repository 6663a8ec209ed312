"""Convolutions, norms and activations in a row."""

from collections.abc import Iterable

from torch import Tensor, nn

from hybrid_backbones.kernels.activation import GELU, SILU, Activation
from hybrid_backbones.kernels.inference import convolve, is_plain_inference
from hybrid_backbones.kernels.linear import apply_convolution


class ConvSequence(nn.Sequential):
    """Convolutions, norms and activations one after the other, in few passes for inference."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, D, H', W')."""
        if self.training or not is_plain_inference(x):
            for layer in self:
                x = apply_convolution(layer, x) if isinstance(layer, nn.Conv2d) else layer(x)
            return x
        return _run(x, list(self))


def _run(x: Tensor, layers: Iterable[nn.Module]) -> Tensor:
    left = list(layers)
    while left:
        layer = left.pop(0)
        if not isinstance(layer, nn.Conv2d):
            x = layer(x)
            continue
        norm = left.pop(0) if left and isinstance(left[0], nn.BatchNorm2d | nn.Identity) else None
        activation = _ACTIVATIONS.get(type(left[0])) if left else None
        if activation is not None:
            left.pop(0)
        x = convolve(x, layer, norm=norm, activation=activation)
    return x


_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.SiLU: SILU, nn.GELU: GELU}
