"""Write explanations of a classifier's prediction as files."""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hybrid_backbones import Backbone
from segnetr.outputs.charts.heatmap import draw_heatmap
from segnetr.outputs.explanations.attention_distance import (
    LayerDistances,
    attention_distances,
    draw_distances,
    format_distances,
)
from segnetr.outputs.explanations.grad_cam import grad_cam
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import write_bytes

__all__ = ["LayerDistances", "attention_distances", "explain_image", "grad_cam"]


def explain_image(
    model: Backbone,
    image: Tensor,
    *,
    target: int,
    out: Path,
    name: str,
    pixels: NDArray[np.uint8] | None = None,
    level: int = -1,
) -> list[Path]:
    """Write the Grad-CAM heatmap and the attention distances of one image.

    Args:
        model: The classifier, in evaluation mode.
        image: (1, C, H, W), normalized as in training, on the model's device.
        target: The class to explain, usually the predicted one.
        out: Folder of the files; created if it does not exist.
        name: Prefix of the files; may contain sub-folders.
        pixels: (h, w, 1 or 3), the image to draw on, with the same field of view; None: `image`
            itself, scaled to black and white.
        level: Level of the pyramid for Grad-CAM.

    Returns:
        `NAME_cam.png`; for networks with attention between positions also `NAME_attention.csv`
        and `NAME_attention.svg`, the mean attention distance by layer and head.

    Raises:
        ValueError: If the class or the level does not exist, or `image` is not a single image.
        WriteError: If a file cannot be written.
    """
    heat = grad_cam(model, image, target=target, level=level)
    shown = _to_image(image) if pixels is None else pixels
    contents = {out / f"{name}_cam.png": _encode(draw_heatmap(shown, heat))}
    layers = attention_distances(model, image)
    if layers:
        contents[out / f"{name}_attention.csv"] = format_distances(layers).encode()
        contents[out / f"{name}_attention.svg"] = draw_distances(layers).encode()
    for path, content in contents.items():
        with as_write_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
    return list(contents)


def _to_image(image: Tensor) -> NDArray[np.uint8]:
    """Scale the image to 0..255. Without 1 or 3 channels, only the first channel is used."""
    values = image[0].detach().float().cpu()
    values = values if len(values) in (1, 3) else values[:1]
    low, high = values.min(), values.max()
    shares = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    return np.asarray((255 * shares).round().permute(1, 2, 0), dtype=np.uint8)


def _encode(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
