"""Exact distances between the borders of two masks, in two or three dimensions.

The border S(M) of a mask M is the set of its pixels that share a side with a pixel outside M (4
neighbors in an image, 6 in a volume). Pixels outside the image count as outside M. Distances are
measured between pixel centers, with the pixel size along each axis. MONAI uses the same definition
of the border.

Source:
    Taha and Hanbury, Metrics for evaluating 3D medical image segmentation, BMC Medical Imaging
    15:29, 2015 (HD95, ASSD); Nikolov et al., arXiv:1809.04430, section "Performance metrics" (NSD,
    here with equally weighted border pixels instead of surface elements).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

BoolArray = npt.NDArray[np.bool_]
_Floats = npt.NDArray[np.float64]

# The cost of a search tree grows with the border pixels, that of a distance map with the pixels of
# the box. Search tree and distance map, measured on two cores in a box of 4.8 million pixels:
# 0.07 s and 0.32 s for an organ of 50 000 border pixels, 4.3 s and 0.26 s for a speckled mask
# of 930 000.
_BOX_PIXELS_PER_BORDER_PIXEL = 20


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distances between the borders of two masks that both have pixels.

    Attributes:
        to_ground_truth: (n,) from each border pixel of the prediction to the border of the
            ground truth.
        to_prediction: (m,) from each border pixel of the ground truth to the border of the
            prediction.
    """

    to_ground_truth: _Floats
    to_prediction: _Floats

    @property
    def hd95(self) -> float:
        """The larger of the two directed 95th percentiles (linear interpolation)."""
        return float(
            max(np.percentile(self.to_ground_truth, 95), np.percentile(self.to_prediction, 95))
        )

    @property
    def assd(self) -> float:
        """(sum of `to_ground_truth` + sum of `to_prediction`) / (n + m)."""
        total = self.to_ground_truth.sum() + self.to_prediction.sum()
        return float(total / (self.to_ground_truth.size + self.to_prediction.size))

    def nsd(self, tolerance: float) -> float:
        """Return the share of all n + m border pixels within the tolerance of the other border."""
        # A distance of 20 x 0.1 mm counts as within 2 mm despite rounding.
        limit = tolerance * (1 + 1e-9)
        near = np.count_nonzero(self.to_ground_truth <= limit)
        near += np.count_nonzero(self.to_prediction <= limit)
        return float(near / (self.to_ground_truth.size + self.to_prediction.size))


def find_border(mask: BoolArray) -> BoolArray:
    """Return the border of a mask as a mask, (H, W) or (X, Y, Z)."""
    inner: BoolArray = ndimage.binary_erosion(mask)
    return mask & ~inner


def measure_surfaces(
    prediction: BoolArray, ground_truth: BoolArray, *, spacing: tuple[float, ...]
) -> SurfaceDistances:
    """Compute the distances between the borders of two masks.

    Args:
        prediction: (H, W) or (X, Y, Z), with at least one pixel set.
        ground_truth: Like `prediction`.
        spacing: Size of a pixel along each axis.

    Raises:
        ValueError: If one of the masks is empty.
    """
    if not (prediction.any() and ground_truth.any()):
        raise ValueError("distances need two masks that are not empty")
    box = _common_box(prediction, ground_truth)
    ours, theirs = find_border(prediction[box]), find_border(ground_truth[box])
    border_pixels = np.count_nonzero(ours) + np.count_nonzero(theirs)
    sparse = border_pixels * _BOX_PIXELS_PER_BORDER_PIXEL < ours.size
    measure = _search_tree if sparse else _distance_map
    return SurfaceDistances(
        measure(ours, theirs, spacing=spacing), measure(theirs, ours, spacing=spacing)
    )


def _common_box(prediction: BoolArray, ground_truth: BoolArray) -> tuple[slice, ...]:
    """Return the bounding box of both masks. Cropping to it does not change the borders."""
    return tuple(ndimage.find_objects((prediction | ground_truth).view(np.uint8), max_label=1)[0])


def _search_tree(start: BoolArray, goal: BoolArray, *, spacing: tuple[float, ...]) -> _Floats:
    # Grid pixels do not need a balanced tree, which would take most of the time to build.
    tree = KDTree(np.argwhere(goal) * spacing, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(np.argwhere(start) * spacing)
    return np.asarray(distances, dtype=np.float64)


def _distance_map(start: BoolArray, goal: BoolArray, *, spacing: tuple[float, ...]) -> _Floats:
    distances = ndimage.distance_transform_edt(~goal, sampling=spacing)
    return np.asarray(distances[start], dtype=np.float64)
