"""Where in a file some rows of a slice lie, and who looks on while their classes are chosen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segnetr.engine.inference.labeling import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in a file some rows of a slice lie.

    Attributes:
        axis: The axis slices are stacked along; None: a image.
        plane: Number of the slice.
        rows: The rows.
        start: Pixels of the file before these, slice by slice and row by row.
    """

    axis: int | None
    plane: int
    rows: slice
    start: int

    def cut(self, whole: NDArray[Any]) -> NDArray[Any]:
        """Give these rows of an array (H, W) or (X, Y, Z) on the grid of the file, as a view."""
        if self.axis is None:
            return whole[self.rows]
        return np.moveaxis(whole, self.axis, -1)[self.rows, :, self.plane]


ProbabilityCallback = Callable[[Place, int, NDArray[np.float32]], None]
"""Takes in a place, the number of a class and its probabilities there; class after class."""


def make_probability_writer(
    kept: NDArray[np.float32] | None, watch: ProbabilityCallback | None, place: Place
) -> Store | None:
    """Say what becomes of the probabilities of some rows while labels are chosen.

    Args:
        kept: Where they are written, (K, h, w); None: they are not kept.
        watch: Who is shown them; None: nobody.
        place: Where the rows lie.

    Returns:
        As `label_pixels` takes it; None where nothing becomes of them.
    """
    if kept is None and watch is None:
        return None

    def store(index: int, probability: Tensor) -> None:
        values = probability.cpu().numpy()
        if kept is not None:
            kept[index] = values
        if watch is not None:
            watch(place, index, values)

    return store
