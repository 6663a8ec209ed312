"""How volumes become images: which slices, how many together, at which pixel size."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

_MOST_NEIGHBORS = 8


def _as_pair(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)  # the strict check of a model's card takes no list for a tuple
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), float(value)) if is_number else value


Spacing = Annotated[float, Field(ge=0.01, le=100)]
PlaneSpacing = Annotated[tuple[Spacing, Spacing], BeforeValidator(_as_pair)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SliceConfig:
    """How volumes are cut into the images that a network sees.

    Attributes:
        axis: The axis of the file that slices are stacked along, as stored: 0, 1 or 2. Of the two
            others the lower one becomes the height of a slice.
        neighbors: So many slices on either side come with each slice, as channels: 2 k + 1 times
            the channels of the file. At the ends the last slice is repeated.
        spacing_mm: Pixel sides that slices are brought to, along height and width; one number:
            both. Slices are then padded or cut to the image size and not squashed, and prediction
            slides windows (`predict.mode` "window"). None: as stored.
        empty_share: Largest share of slices without any foreground among the training slices;
            1: all are kept. The others are always kept.
    """

    axis: Literal[0, 1, 2] = 2
    neighbors: Annotated[int, Field(ge=0, le=_MOST_NEIGHBORS)] = 0
    spacing_mm: PlaneSpacing | None = None
    empty_share: Annotated[float, Field(ge=0, le=1)] = 1.0

    @property
    def together(self) -> int:
        """Slices that a network sees at once."""
        return 2 * self.neighbors + 1
