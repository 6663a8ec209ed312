"""The deepest level of a network as a description of what it is shown."""

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
    """Find the module that makes the deepest feature map, whatever the architecture.

    That is the map with the fewest pixels, more than one; of several the last, before the maps
    grow again. An image of noise is sent through to see.

    Args:
        model: Maps images (N, C, H, W) to logits; in evaluation mode.
        channels: C.
        image_size: (height, width) in pixels.

    Returns:
        Its dotted name; None where no module gives a map.
    """
    seen: list[tuple[int, int, str]] = []

    def note(name: str) -> Any:
        def look(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2:].numel() > 1:
                seen.append((-output.shape[2:].numel(), len(seen), name))

        return look

    handles = [
        module.register_forward_hook(note(name)) for name, module in model.named_modules() if name
    ]
    place = next(model.parameters()).device
    source = torch.Generator().manual_seed(0)
    noise = torch.rand((1, channels, *image_size), generator=source).to(place)
    try:
        with torch.inference_mode():
            model(noise)
    finally:
        for handle in handles:
            handle.remove()
    return max(seen)[2] if seen else None


class Embedding:
    """The mean of a level's map over everything that a network is shown of one file.

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
                f"the network has no level {level!r} that its quality.json names; train it anew, "
                "or predict with --no-quality"
            ) from error
        self._sum: Tensor | None = None
        self._maps = 0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Look at what the module gives as long as the context lasts."""
        handle = self._module.register_forward_hook(self._look)
        try:
            yield
        finally:
            handle.remove()

    def finish(self) -> NDArray[np.float64]:
        """Give the mean (C,) over images, views and places."""
        if self._sum is None:
            raise ValueError("the network was shown nothing")
        mean: NDArray[np.float64] = (self._sum / self._maps).double().cpu().numpy()
        return mean

    def _look(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        pooled = output.float().mean(dim=(2, 3)).sum(dim=0)
        self._sum = pooled if self._sum is None else self._sum + pooled
        self._maps += len(output)
