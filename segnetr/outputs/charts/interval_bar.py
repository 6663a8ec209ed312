"""Small bars for table cells: a share between 0 and 1 with its interval."""

from segnetr.outputs.charts.svg import element, rectangle

_WIDTH, _HEIGHT = 150, 14


def draw_interval_bar(value: float | None, low: float | None, high: float | None) -> str:
    """Draw a value with its interval on a track from 0 to 1.

    Args:
        value: In 0..1; None draws nothing.
        low: Lower end of the interval; None: the value itself.
        high: Upper end; None: the value itself.
    """
    if value is None:
        return ""
    start, end = (value if side is None else side for side in (low, high))
    span = rectangle(_WIDTH * start, 3, _WIDTH * (end - start), 8, style="span")
    mark = rectangle(_WIDTH * value - 1, 0, 2, _HEIGHT, style="mean")
    return _draw_track(span + mark)


def draw_share_bar(share: float) -> str:
    """Draw a share as a bar from 0 on a track to 1."""
    return _draw_track(rectangle(0, 3, _WIDTH * share, 8, style="span"))


def _draw_track(content: str) -> str:
    track = rectangle(0, 6, _WIDTH, 2, style="track")
    size = f"0 0 {_WIDTH} {_HEIGHT}"
    return element("svg", track + content, class_="interval", viewBox=size, aria_hidden="true")
