"""Settings of how volumes are cut into images: slices, neighbors, pixel size."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from segnetr.config.schema.value_types import Fraction, list_to_tuple

_MAX_NEIGHBORS = 8


def _to_pair(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), float(value)) if is_number else list_to_tuple(value)


Spacing = Annotated[float, Field(ge=0.01, le=100)]
PlaneSpacing = Annotated[tuple[Spacing, Spacing], BeforeValidator(_to_pair)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SliceConfig:
    """How volumes are cut into the images that a network takes.

    Attributes:
        axis: Slice axis of the file as stored: 0, 1 or 2. The lower of the two other axes becomes
            the height of a slice.
        neighbors: Neighboring slices on either side that are added as channels: k neighbors give
            2 k + 1 times the channels of the file. At the ends, the last slice is repeated.
        spacing_mm: Pixel spacing along height and width that slices are resampled to; one number
            sets both. Slices are then padded or cropped to the image size instead of resized, and
            prediction uses sliding windows (`predict.mode` "window"). None: as stored.
        empty_share: Largest fraction of training slices without foreground. 1: all are used.
            Slices with foreground are always used.
    """

    axis: Literal[0, 1, 2] = 2
    neighbors: Annotated[int, Field(ge=0, le=_MAX_NEIGHBORS)] = 0
    spacing_mm: PlaneSpacing | None = None
    empty_share: Fraction = 1.0

    @property
    def num_slices(self) -> int:
        """Number of slices that the network takes at once."""
        return 2 * self.neighbors + 1
