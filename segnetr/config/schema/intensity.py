"""Settings of the normalization of gray values and colors."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class IntensityConfig:
    """Normalization of gray values and colors.

    Attributes:
        kind: Method. "fixed" scales the file's integer range to 0..1 and then applies `mean` and
            `std`; "per_image" subtracts each image's own mean and divides by its own standard
            deviation; "per_image_lit" does the same over the pixels that are not black (a
            dermoscope has black corners), and clips at 6 standard deviations. For volumes, over
            the whole volume: "per_volume" uses mean and standard deviation of the voxels that are
            not 0; "percentiles" maps the percentiles `low` and `high` to -2 and 2; "window" maps
            the values `low` and `high` of the file (Hounsfield units for CT).
        mean: Mean of each channel on the 0..1 scale; one value applies to all channels.
        std: Standard deviation, like `mean`.
        low: Lower limit of "percentiles" (default 0.5) and "window"; lower values are clipped.
        high: Upper limit, like `low` (default 99.5).
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
        """Return whether values are normalized over whole volumes."""
        return self.kind in ("per_volume", "percentiles", "window")

    @model_validator(mode="after")
    def _check_limits(self) -> "IntensityConfig":
        if self.kind not in ("percentiles", "window"):
            if (self.low, self.high) != (None, None):
                raise ValueError(
                    f"low and high apply to percentiles and window, not to {self.kind}"
                )
            return self
        low, high = self.low, self.high
        if self.kind == "percentiles":
            low, high = 0.5 if low is None else low, 99.5 if high is None else high
            if not 0 <= low < high <= 100:
                raise ValueError(f"percentiles need 0 <= low < high <= 100, not {low}, {high}")
        elif low is None or high is None or low >= high:
            raise ValueError(f"a window needs low below high, not {low}, {high}")
        return self
