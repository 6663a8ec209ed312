"""A matrix over the last axis, fast for inference."""

from torch import Tensor, nn

from hybrid_backbones.layers.activation import Activation
from hybrid_backbones.layers.inference import is_plain_inference, multiply


class Linear(nn.Linear):
    """`torch.nn.Linear`, which runs through oneDNN where no gradient is kept on a processor."""

    def forward(self, x: Tensor, activation: Activation | None = None) -> Tensor:
        """Map (..., C) to (..., D); `activation`, of slope 1, is applied to the result."""
        if is_plain_inference(x):
            return multiply(x, self.weight, self.bias, activation=activation)
        product = super().forward(x)
        return product if activation is None else activation(product)
