"""Mean attention distance: the distance between a query and the keys it attends to.

Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021, arXiv:2010.11929, figure 7 and
appendix D.7; for hybrid networks: Xu et al., ViTAE, NeurIPS 2021, arXiv:2106.03348.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybrid_backbones import AttentionCall, capture_attention
from segnetr.outputs.charts.axes import Axis
from segnetr.outputs.charts.svg import circle, element, file_document, line, text
from segnetr.outputs.tables.csv_file import format_csv

# Limit of the attention weights in memory: 64 MiB of float32, for maps of any size.
_MOST_WEIGHTS = 1 << 24
_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 18, 44, 48
_MOST_NUMBERS = 12
_STYLE = (
    ".chart-title{fill:#1c2126;font-size:15px} .tick{fill:#5b6670;font-size:13px}"
    " .grid{stroke:#dfe3e6} .dot{fill:#0072b2}"
    " .mean{fill:none;stroke:#d55e00;stroke-width:2}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDistances:
    """The mean attention distances of one layer.

    Attributes:
        name: Dotted name of the attention module.
        pixels: One mean for each head, in pixels of the network's input.
    """

    name: str
    pixels: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over the heads."""
        return sum(self.pixels) / len(self.pixels)


def attention_distances(model: nn.Module, image: Tensor) -> list[LayerDistances]:
    """Measure the mean attention distance of each head of each layer.

    The distance of a query is the mean of the distances to its keys, weighted by attention; the
    result is the mean over queries and images. Class tokens and padding have no position: they are
    not counted as queries, and attention to them is excluded from the weights.

    Args:
        model: A backbone or a network that contains one, in evaluation mode.
        image: (N, C, H, W), normalized as in training.

    Returns:
        In the order in which the network runs. Empty for Mobile-Former, which has no attention
        between positions; `hybrid_backbones.capture_attention` lists the other exceptions.

    Source:
        arXiv:2010.11929, appendix D.7.
    """
    found: list[LayerDistances] = []
    with torch.no_grad(), capture_attention(model, lambda call: found.append(_measure(call))):
        model(image)
    return found


def format_distances(layers: Sequence[LayerDistances]) -> str:
    """Return the distances as CSV text, one line for each head."""
    rows = [
        {
            "layer": number,
            "name": layer.name,
            "head": head,
            "distance_pixels": f"{distance:.4f}",
        }
        for number, layer in enumerate(layers, start=1)
        for head, distance in enumerate(layer.pixels, start=1)
    ]
    return format_csv(rows, ["layer", "name", "head", "distance_pixels"])


def draw_distances(layers: Sequence[LayerDistances]) -> str:
    """Return an SVG file with a dot for each head of each layer, and a line of the layer means.

    Raises:
        ValueError: If there are no layers.
    """
    if not layers:
        raise ValueError("no layer with attention between positions")
    y_axis = Axis.linear(
        [0.0, *(value for layer in layers for value in layer.pixels)],
        start=_HEIGHT - _BOTTOM,
        end=_TOP,
        count=5,
    )
    width = (_WIDTH - _LEFT - _RIGHT) / len(layers)
    columns = [_LEFT + width * (number + 0.5) for number in range(len(layers))]
    points = " ".join(
        f"{x:.1f},{y_axis.position(layer.mean):.1f}"
        for x, layer in zip(columns, layers, strict=True)
    )
    dots = [
        circle(x, y_axis.position(value), 3, style="dot", fill_opacity="0.65")
        for x, layer in zip(columns, layers, strict=True)
        for value in layer.pixels
    ]
    curve = element("polyline", class_="mean", points=points)
    return file_document(
        [*_draw_frame(y_axis, columns), curve, *dots],
        width=_WIDTH,
        height=_HEIGHT,
        label="Mean attention distance by layer",
        style_sheet=_STYLE,
    )


def _measure(call: AttentionCall) -> LayerDistances:
    queries, keys = call.query_positions, call.key_positions
    is_query = torch.isfinite(queries).all(-1)
    is_key = torch.isfinite(keys).all(-1)
    images, groups, heads, positions = call.queries.shape[:4]
    rows = max(1, _MOST_WEIGHTS // (images * groups * heads * keys.shape[1]))
    total = torch.zeros(heads, dtype=torch.float64)
    count = 0
    for start in range(0, positions, rows):
        chunk = slice(start, start + rows)
        steps = queries[:, chunk, None] - keys[:, None]
        distances = steps.square().sum(-1).sqrt().nan_to_num(0)[:, None]
        weights = call.weights(chunk).float().cpu() * is_key[:, None, None]
        mass = weights.sum(-1)
        means = (weights * distances).sum(-1) / mass.clamp_min(torch.finfo(mass.dtype).tiny)
        counted = is_query[:, None, chunk] & (mass > 0)
        total += (means * counted).double().sum((0, 1, 3))
        count += int(counted.sum()) // heads
    return LayerDistances(name=call.name, pixels=tuple((total / max(count, 1)).tolist()))


def _draw_frame(y_axis: Axis, columns: Sequence[float]) -> list[str]:
    """Draw title, legend, grid and the numbers of the layers."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        text(_LEFT, 22, "Mean attention distance in pixels", style="chart-title"),
        circle(right - 164, 18, 3, style="dot"),
        text(right - 156, 22, "head"),
        line(right - 114, 18, right - 94, 18, style="mean"),
        text(right, 22, "mean of heads", text_anchor="end"),
        text((_LEFT + right) / 2, bottom + 38, "layer", text_anchor="middle"),
    ]
    for y, words in y_axis.ticks():
        parts.append(line(_LEFT, y, right, y, style="grid"))
        parts.append(text(_LEFT - 8, y + 4, words, text_anchor="end"))
    stride = -(-len(columns) // _MOST_NUMBERS)
    for number, x in list(enumerate(columns, start=1))[::stride]:
        parts.append(text(x, bottom + 18, str(number), text_anchor="middle"))
    return parts
