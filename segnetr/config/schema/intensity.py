"""How gray values and colors become numbers: part of the schema."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class IntensityConfig:
    """How gray values and colors become the numbers a network sees.

    Attributes:
        kind: "fixed" scales by the file's integer range to 0..1 and then uses `mean` and `std`;
            "per_image" subtracts each image's own mean and divides by its own deviation;
            "per_image_lit" likewise, both taken over the pixels that are not black, as the corners
            of a dermoscope are, and cut at 6 deviations. For volumes, over the whole of each:
            "per_volume" takes mean and deviation over the voxels that are not 0; "percentiles"
            brings `low` and `high` percent to -2 and 2; "window" the values `low` and `high` of
            the file (for CT in Hounsfield units).
        mean: One value for each channel on the 0..1 scale; one value serves all channels.
        std: As `mean`.
        low: Of "percentiles", where 0.5 is the default, and of "window"; what lies below is cut.
        high: As `low`, with 99.5.
    """

    kind: Literal["fixed", "per_image", "per_image_lit", "per_volume", "percentiles", "window"] = (
        "fixed"
    )
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (0.229, 0.224, 0.225)
    low: Finite | None = None
    high: Finite | None = None

    @property
    def is_of_volumes(self) -> bool:
        """Whether values are normalized over whole volumes."""
        return self.kind in ("per_volume", "percentiles", "window")

    @model_validator(mode="after")
    def _check_limits(self) -> "IntensityConfig":
        if self.kind not in ("percentiles", "window"):
            if (self.low, self.high) != (None, None):
                raise ValueError(f"low and high are for percentiles and window, not {self.kind}")
            return self
        low, high = self.low, self.high
        if self.kind == "percentiles":
            low, high = 0.5 if low is None else low, 99.5 if high is None else high
            if not 0 <= low < high <= 100:
                raise ValueError(f"percentiles need 0 <= low < high <= 100, not {low}, {high}")
        elif low is None or high is None or low >= high:
            raise ValueError(f"a window needs low below high, not {low}, {high}")
        return self
