"""How far attention looks: the mean distance between a place and those it attends to.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929, figure 7 and
appendix D.7; for hybrid networks: Xu et al., ViTAE, NeurIPS 2021, arXiv:2106.03348.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybrid_backbones import AttentionCall, capture_attention
from segnetr.outputs.charts.curves import Axis

# Weights held at a time, however large the map: 64 MiB of float32.
_MOST_WEIGHTS = 1 << 24
_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 44, 48
_MOST_NUMBERS = 12
_INK, _SOFT, _LINE, _DOT, _MEAN = "#1c2126", "#5b6670", "#dfe3e6", "#0072b2", "#d55e00"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDistances:
    """The mean attention distances of one layer.

    Attributes:
        name: Dotted name of the module that attends.
        pixels: One mean for each head, in pixels of the image the network saw.
    """

    name: str
    pixels: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the heads."""
        return sum(self.pixels) / len(self.pixels)


def attention_distances(model: nn.Module, image: Tensor) -> list[LayerDistances]:
    """Measure the mean attention distance of each head of each layer.

    For each place that asks: the mean of the distances to the places it attends to, weighted by
    attention. Of that the mean over places and images. Class tokens and padding lie nowhere: they
    do not ask, and what goes to them is left out of the weights.

    Args:
        model: A backbone or a network that contains one, in evaluation mode.
        image: (N, C, H, W), normalized as in training.

    Returns:
        In the order in which the network runs. Empty for Mobile-Former, in which no place attends
        to a place; see `hybrid_backbones.capture_attention` for what else is passed over.

    Source:
        arXiv:2010.11929, appendix D.7.
    """
    found: list[LayerDistances] = []
    with torch.no_grad(), capture_attention(model, lambda call: found.append(_measure(call))):
        model(image)
    return found


def format_distances(layers: Sequence[LayerDistances]) -> str:
    """Write the distances as CSV: one line for each head."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["layer", "name", "head", "distance_pixels"])
    for number, layer in enumerate(layers, start=1):
        for head, distance in enumerate(layer.pixels, start=1):
            writer.writerow([number, layer.name, head, f"{distance:.4f}"])
    return buffer.getvalue()


def draw_distances(layers: Sequence[LayerDistances]) -> str:
    """Draw a dot for each head over its layer, and a line through the layers' means, as SVG.

    Raises:
        ValueError: If there is no layer.
    """
    if not layers:
        raise ValueError("no layer with attention between places")
    y_axis = Axis.cover(
        [0.0, *(value for layer in layers for value in layer.pixels)],
        start=_HEIGHT - _BOTTOM,
        end=_TOP,
        count=5,
    )
    reach = (_WIDTH - _LEFT - _RIGHT) / len(layers)
    across = [_LEFT + reach * (number + 0.5) for number in range(len(layers))]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y_axis.place(value):.1f}" r="3" fill="{_DOT}" '
        'fill-opacity="0.65"/>'
        for x, layer in zip(across, layers, strict=True)
        for value in layer.pixels
    ]
    line = " ".join(
        f"{x:.1f},{y_axis.place(layer.mean):.1f}" for x, layer in zip(across, layers, strict=True)
    )
    mean = f'<polyline points="{line}" fill="none" stroke="{_MEAN}" stroke-width="2"/>'
    body = [*_draw_axes(y_axis, across), mean, *dots]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" role="img" font-family="sans-serif">'
        "<title>Mean attention distance by layer</title>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>{"".join(body)}</svg>\n'
    )


def _measure(call: AttentionCall) -> LayerDistances:
    queries, keys = call.query_positions, call.key_positions
    asks = torch.isfinite(queries).all(-1)
    heard = torch.isfinite(keys).all(-1)
    images, groups, heads, places = call.queries.shape[:4]
    rows = max(1, _MOST_WEIGHTS // (images * groups * heads * keys.shape[1]))
    total = torch.zeros(heads, dtype=torch.float64)
    count = 0
    for start in range(0, places, rows):
        part = slice(start, start + rows)
        steps = queries[:, part, None] - keys[:, None]
        distances = steps.square().sum(-1).sqrt().nan_to_num(0)[:, None]
        weights = call.weights(part).float().cpu() * heard[:, None, None]
        mass = weights.sum(-1)
        means = (weights * distances).sum(-1) / mass.clamp_min(torch.finfo(mass.dtype).tiny)
        counted = asks[:, None, part] & (mass > 0)
        total += (means * counted).double().sum((0, 1, 3))
        count += int(counted.sum()) // heads
    return LayerDistances(name=call.name, pixels=tuple((total / max(count, 1)).tolist()))


def _draw_axes(y_axis: Axis, across: Sequence[float]) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        _text(_LEFT, 22, "Mean attention distance in pixels", color=_INK, size=15),
        f'<circle cx="{right - 164}" cy="18" r="3" fill="{_DOT}"/>',
        _text(right - 156, 22, "head"),
        f'<line x1="{right - 114}" x2="{right - 94}" y1="18" y2="18" stroke="{_MEAN}" '
        'stroke-width="2"/>',
        _text(right, 22, "mean of heads", anchor="end"),
        _text((_LEFT + right) / 2, bottom + 38, "layer", anchor="middle"),
    ]
    for y, text in y_axis.ticks():
        parts.append(
            f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_LINE}"/>'
        )
        parts.append(_text(_LEFT - 8, y + 4, text, anchor="end"))
    every = -(-len(across) // _MOST_NUMBERS)
    for number, x in enumerate(across, start=1):
        if (number - 1) % every == 0:
            parts.append(_text(x, bottom + 18, str(number), anchor="middle"))
    return parts


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", color: str = _SOFT, size: int = 13
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}" '
        f'font-size="{size}">{text}</text>'
    )
