"""Distances between the borders of two masks, exact, in two or three dimensions.

The border S(M) of a mask M is the set of its pixels that have a neighbor outside M across a side
(4 neighbors in a image, 6 in a volume); what lies outside the image counts as outside M. A
distance is measured between pixel centers, with the pixel's size along each axis. This is the
border MONAI takes.

Source:
    Taha and Hanbury, Metrics for evaluating 3D medical image segmentation, BMC Medical Imaging
    15:29, 2015 (HD95, ASSD); Nikolov et al., arXiv:1809.04430, section "Performance metrics" (NSD,
    here with border pixels of equal weight in place of surface elements).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import KDTree

BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.float64]

# A search tree costs by border pixel, a distance map by pixel of the box. Measured on two cores:
# an organ of 50 000 border pixels in a box of 4.8 million takes 0.07 s against 0.32 s, a speckled
# mask of 930 000 in the same box 4.3 s against 0.26 s.
_BOX_PIXELS_PER_BORDER_PIXEL = 20


@dataclass(frozen=True, slots=True)
class SurfaceDistances:
    """Distances between the borders of two masks that both have pixels.

    Attributes:
        to_ground_truth: From each border pixel of the prediction to the ground truth's border,
            (n,).
        to_prediction: From each border pixel of the ground truth to the prediction's border, (m,).
    """

    to_ground_truth: FloatArray
    to_prediction: FloatArray

    @property
    def hd95(self) -> float:
        """The larger of the two directed 95th percentiles (linear between ranks)."""
        return float(
            max(np.percentile(self.to_ground_truth, 95), np.percentile(self.to_prediction, 95))
        )

    @property
    def assd(self) -> float:
        """(sum of `to_ground_truth` + sum of `to_prediction`) / (n + m)."""
        total = self.to_ground_truth.sum() + self.to_prediction.sum()
        return float(total / (self.to_ground_truth.size + self.to_prediction.size))

    def nsd(self, tolerance: float) -> float:
        """Share of all n + m border pixels that lie within the tolerance of the other border."""
        # A distance of 20 x 0.1 mm counts as within 2 mm whatever its last bit is.
        limit = tolerance * (1 + 1e-9)
        near = np.count_nonzero(self.to_ground_truth <= limit)
        near += np.count_nonzero(self.to_prediction <= limit)
        return float(near / (self.to_ground_truth.size + self.to_prediction.size))


def find_border(mask: BoolArray) -> BoolArray:
    """Mark the pixels of a mask that touch its outside across a side, (H, W) or (X, Y, Z)."""
    inner: BoolArray = ndimage.binary_erosion(mask)
    return mask & ~inner


def measure_surfaces(
    prediction: BoolArray, ground_truth: BoolArray, *, spacing: tuple[float, ...]
) -> SurfaceDistances:
    """Measure how far the borders of two masks lie from each other.

    Args:
        prediction: (H, W) or (X, Y, Z), with at least one pixel set.
        ground_truth: As `prediction`.
        spacing: Size of a pixel along each axis.

    Raises:
        ValueError: If one of the masks is empty: there is no distance to nothing.
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
    """Cut away what is empty in both; the cut lies outside both masks, so no border moves."""
    return tuple(ndimage.find_objects((prediction | ground_truth).view(np.uint8), max_label=1)[0])


def _search_tree(start: BoolArray, goal: BoolArray, *, spacing: tuple[float, ...]) -> FloatArray:
    # Pixels of a grid need no balanced tree, and building one takes most of the time.
    tree = KDTree(np.argwhere(goal) * spacing, balanced_tree=False, compact_nodes=False)
    distances, _ = tree.query(np.argwhere(start) * spacing)
    return np.asarray(distances, dtype=np.float64)


def _distance_map(start: BoolArray, goal: BoolArray, *, spacing: tuple[float, ...]) -> FloatArray:
    distances = ndimage.distance_transform_edt(~goal, sampling=spacing)
    return np.asarray(distances[start], dtype=np.float64)
