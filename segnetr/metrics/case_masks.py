"""The two masks of one case and class, with quantities shared by several metrics."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from segnetr.metrics.surface import BoolArray, SurfaceDistances, measure_surfaces


@dataclass(frozen=True, kw_only=True)
class CaseMasks:
    """The masks of one class in one case, cropped to the bounding box of both.

    Attributes:
        predicted: Predicted mask, (H, W) or (X, Y, Z).
        true: Ground truth mask of the same shape.
        spacing: Size of a pixel along each axis.
        nsd_tolerance: Tolerance of the normalized surface Dice, in the unit of the spacing.
        isic_threshold: IoU below this counts as 0 in `isic_jaccard`.
    """

    predicted: BoolArray
    true: BoolArray
    spacing: tuple[float, ...]
    nsd_tolerance: float
    isic_threshold: float

    @cached_property
    def predicted_pixels(self) -> int:
        """Number of pixels in the predicted mask."""
        return int(np.count_nonzero(self.predicted))

    @cached_property
    def true_pixels(self) -> int:
        """Number of pixels in the ground truth mask."""
        return int(np.count_nonzero(self.true))

    @cached_property
    def shared_pixels(self) -> int:
        """Number of pixels in both masks."""
        return int(np.count_nonzero(self.predicted & self.true))

    @property
    def dice(self) -> float:
        """Dice coefficient; at least one mask must have pixels."""
        return 2 * self.shared_pixels / (self.predicted_pixels + self.true_pixels)

    @property
    def iou(self) -> float:
        """Intersection over union; at least one mask must have pixels."""
        union = self.predicted_pixels + self.true_pixels - self.shared_pixels
        return self.shared_pixels / union

    @cached_property
    def surfaces(self) -> SurfaceDistances:
        """Distances between the borders, computed once; both masks must have pixels."""
        return measure_surfaces(self.predicted, self.true, spacing=self.spacing)
