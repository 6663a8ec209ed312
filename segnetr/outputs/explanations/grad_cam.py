"""Grad-CAM: the regions of an image that support a class.

Selvaraju et al., Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization,
ICCV 2017, arXiv:1610.02391.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hybrid_backbones import Backbone


def grad_cam(
    model: Backbone, image: Tensor, *, target: int, level: int = -1
) -> NDArray[np.float32]:
    """Return the sum of the channels of a feature map, weighted by the gradient of a class logit.

    If the logits do not depend on the map of the pyramid, a tensor is used on which they depend:
    the output of the stage before its norm; or, if only a class token is classified, the
    positions that enter the last block.

    Args:
        model: A backbone with a head. It runs in evaluation mode; its mode is restored.
        image: (1, C, H, W), normalized as in training.
        target: The class.
        level: Level of the pyramid, 0 the finest; negative ones count from the coarsest, -1.

    Returns:
        (H, W) in 0..1; 1 is the strongest support. All 0 if nothing supports the class.

    Raises:
        ValueError: If the class or the level does not exist, or `image` is not a single image.

    Source:
        arXiv:1610.02391, section 3, equations 1 and 2.
    """
    levels = len(model.feature_info)
    if not -levels <= level < levels:
        raise ValueError(f"level {level}: the pyramid has levels 0 to {levels - 1}")
    if not 0 <= target < model.num_classes:
        raise ValueError(f"class {target}: the network has classes 0 to {model.num_classes - 1}")
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"image {tuple(image.shape)}: expected (1, C, H, W)")
    level %= levels
    with torch.enable_grad(), _evaluating(model):
        candidates, score = _run(model, image, target=target, level=level)
        own = candidates[0]
        for carrier in candidates:
            (gradient,) = torch.autograd.grad(score, carrier, retain_graph=True, allow_unused=True)
            if gradient is not None:
                features = _arrange(carrier.detach(), own, is_own=carrier is own)
                heat = _weigh_channels(features, _arrange(gradient, own, is_own=carrier is own))
                size = (int(image.shape[2]), int(image.shape[3]))
                return _to_share(_enlarge(heat, size, model.feature_info[level].stride))
    raise ValueError(f"no logit depends on level {level} of {type(model).__name__}")


def _run(model: Backbone, image: Tensor, *, target: int, level: int) -> tuple[list[Tensor], Tensor]:
    """Return the tensors that may have a gradient, the pyramid's map first, and the logit."""
    captured: dict[str, Tensor] = {}

    def capture_output(_: nn.Module, __: Any, output: Any) -> None:
        captured["output"] = output[0] if isinstance(output, tuple) else output

    def capture_input(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        captured["input"] = inputs[0]

    stage = model.get_submodule(model.feature_info[level].module)
    hooks = [stage.register_forward_hook(capture_output)]
    lists = [child for child in stage.children() if isinstance(child, nn.ModuleList)]
    if lists and len(lists[-1]):
        hooks.append(lists[-1][-1].register_forward_pre_hook(capture_input))
    try:
        # The input requires a gradient, so that frozen networks have a graph, too.
        encoded = model.encode(image.detach().clone().requires_grad_())
        score = model.forward_head(encoded)[0, target]
    finally:
        for hook in hooks:
            hook.remove()
    found = [
        encoded.maps[level],
        *(captured[key] for key in ("output", "input") if key in captured),
    ]
    return found, score


def _arrange(x: Tensor, own: Tensor, *, is_own: bool) -> Tensor:
    """Reshape tokens (1, E + L, D) or a map of either layout to the shape of the pyramid's map."""
    if is_own:
        return x
    if x.ndim == 3:
        height, width = own.shape[2:]
        tokens = x[:, -height * width :].transpose(1, 2)
        return tokens.reshape(own.shape)
    # A map in the layout of the pyramid would be the pyramid's map itself, so if both layouts have
    # the same shape, the channels are last.
    last = x.permute(0, 3, 1, 2)
    return last if last.shape == own.shape else x


def _weigh_channels(features: Tensor, gradient: Tensor) -> Tensor:
    """Return (1, 1, h, w): the sum of the channels, weighted by their mean gradient."""
    weights = gradient.float().mean((2, 3), keepdim=True)
    return F.relu((weights * features.float()).sum(1, keepdim=True))


def _enlarge(heat: Tensor, size: tuple[int, int], stride: int) -> Tensor:
    """Resize (1, 1, h, w) to the grid of the image; cells beyond the image are cropped."""
    grid = [max(cells * stride, side) for cells, side in zip(heat.shape[2:], size, strict=True)]
    grown = F.interpolate(heat, grid, mode="bilinear", align_corners=False)
    return grown[0, 0, : size[0], : size[1]]


def _to_share(heat: Tensor) -> NDArray[np.float32]:
    highest = heat.max()
    share = heat / highest if highest > 0 else torch.zeros_like(heat)
    return np.asarray(share.cpu().numpy(), dtype=np.float32)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
