"""A sequence of convolutions, norms and activations."""

from torch import Tensor, nn

from hybrid_backbones.kernels.activation import GELU, SILU, Activation
from hybrid_backbones.kernels.dispatch import conv_norm

_ACTIVATIONS: dict[type[nn.Module], Activation] = {nn.SiLU: SILU, nn.GELU: GELU}


class ConvSequence(nn.Sequential):
    """Convolutions, norms and activations in sequence; few passes over memory for inference."""

    def forward(self, x: Tensor, norm_ahead: nn.Module | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, D, H', W').

        Args:
            x: The maps.
            norm_ahead: A batch norm applied first, if the first layer is a convolution without
                padding.
        """
        waiting = list(self)
        while waiting:
            layer = waiting.pop(0)
            if not isinstance(layer, nn.Conv2d):
                x = layer(x)
                continue
            norm: nn.Module | None = None
            activation: Activation | None = None
            if waiting and isinstance(waiting[0], nn.BatchNorm2d | nn.Identity):
                norm = waiting.pop(0)
            if waiting and type(waiting[0]) in _ACTIVATIONS:
                activation = _ACTIVATIONS[type(waiting.pop(0))]
            x = conv_norm(x, layer, norm_ahead=norm_ahead, norm=norm, activation=activation)
            norm_ahead = None
        return x
