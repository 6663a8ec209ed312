"""Mean feature map of a network's deepest level, as a description of its input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.errors import ModelFileError


def find_deepest_level(
    model: nn.Module, *, channels: int, image_size: tuple[int, int]
) -> str | None:
    """Find the module that outputs the deepest feature map, for any architecture.

    This is the map with the fewest pixels, but more than one. Among several the last is chosen,
    before the maps grow again. The network is run on an image of noise to find out.

    Args:
        model: Maps images (N, C, H, W) to logits, in evaluation mode.
        channels: Input channels C.
        image_size: (height, width) in pixels.

    Returns:
        Its dotted name. None if no module outputs a feature map.
    """
    found: list[tuple[int, int, str]] = []

    def make_hook(name: str) -> Any:
        def record(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                found.append((-output.shape[2:].numel(), len(found), name))

        return record

    handles = [
        module.register_forward_hook(make_hook(name))
        for name, module in model.named_modules()
        if name
    ]
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((1, channels, *image_size), generator=generator).to(device)
    try:
        with torch.inference_mode():
            model(noise)
    finally:
        for handle in handles:
            handle.remove()
    return max(found)[2] if found else None


class Embedding:
    """Mean feature map of one module over all inputs of one file.

    Args:
        model: The network.
        level: Dotted name of the module, from `find_deepest_level`.

    Raises:
        ModelFileError: If the network has no such module.
    """

    def __init__(self, model: nn.Module, level: str) -> None:
        try:
            self._module = model.get_submodule(level)
        except AttributeError as error:
            raise ModelFileError(
                f"the network has no level {level!r}, which its quality.json names; train it again "
                "or predict with --no-quality"
            ) from error
        self._sum: Tensor | None = None
        self._maps = 0

    @contextmanager
    def attach(self) -> Iterator[None]:
        """Add up the outputs of the module inside the context."""
        handle = self._module.register_forward_hook(self._update)
        try:
            yield
        finally:
            handle.remove()

    def result(self) -> NDArray[np.float64]:
        """Return the mean (C,) over inputs, augmentations and positions."""
        if self._sum is None:
            raise ValueError("the network has not run inside attach()")
        mean: NDArray[np.float64] = (self._sum / self._maps).double().cpu().numpy()
        return mean

    def _update(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        pooled = output.float().mean(dim=(2, 3)).sum(dim=0)
        self._sum = pooled if self._sum is None else self._sum + pooled
        self._maps += len(output)
