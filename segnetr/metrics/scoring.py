"""The scores of one case."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segnetr.metrics.score import GROUND_TRUTH_PIXELS, PREDICTED_PIXELS, SHARED_PIXELS, Score
from segnetr.metrics.summary import MEAN
from segnetr.metrics.surface import BoolArray, measure_surfaces

_Values = dict[str, float | None]


def score_masks(
    prediction: npt.NDArray[np.integer],
    ground_truth: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    case_id: str,
    spacing: tuple[float, ...] | None = None,
    nsd_tolerance: float = 2.0,
    isic_threshold: float = 0.65,
) -> list[Score]:
    """Score the prediction of one case, class by class, on the grid it is given on.

    Args:
        prediction: Class indices, (H, W) or (X, Y, Z).
        ground_truth: As `prediction`, on the same grid.
        classes: Class names, background first; index 0 is not scored.
        case_id: The case, for the scores and for messages.
        spacing: Size of a pixel along each axis in millimeters; None: lengths are in pixels.
        nsd_tolerance: Tolerance of the normalized surface Dice, in the unit of the lengths.
        isic_threshold: IoU below this counts 0 in `isic_jaccard`, which images with one
            foreground class get.

    Returns:
        For each foreground class `dice`, `iou`, perhaps `isic_jaccard`, `hd95_*`, `assd_*`,
        `nsd_*` and the three `PIXEL_COUNTS`, by the rules of `segnetr.metrics`.

    Raises:
        ValueError: If the grids differ, the spacing does not fit them, a value is no class, or a
            class bears the reserved name "mean".
    """
    size = _check(prediction, ground_truth, classes=classes, case_id=case_id, spacing=spacing)
    unit = "px" if spacing is None else "mm"
    names = (f"hd95_{unit}", f"assd_{unit}", f"nsd_{nsd_tolerance:g}{unit}")
    is_isic = ground_truth.ndim == 2 and len(classes) == 2
    scores: list[Score] = []
    diagonal = math.hypot(
        *(count * side for count, side in zip(ground_truth.shape, size, strict=True))
    )
    boxes = _find_boxes(prediction, ground_truth, classes=len(classes))
    for index, class_name in enumerate(classes[1:], start=1):
        box = boxes[index - 1]
        found, true = prediction[box] == index, ground_truth[box] == index
        values = _overlap(found, true)
        if is_isic:
            iou = values["iou"]
            values["isic_jaccard"] = iou if iou is not None and iou >= isic_threshold else 0.0
        distances = _distances(found, true, size=size, tolerance=nsd_tolerance, diagonal=diagonal)
        values |= dict(zip(names, distances, strict=True))
        values |= {
            GROUND_TRUTH_PIXELS: float(np.count_nonzero(true)),
            PREDICTED_PIXELS: float(np.count_nonzero(found)),
            SHARED_PIXELS: float(np.count_nonzero(found & true)),
        }
        scores += [
            Score(case_id=case_id, class_name=class_name, metric=metric, value=value)
            for metric, value in values.items()
        ]
    return scores


def _check(
    prediction: npt.NDArray[np.integer],
    ground_truth: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    case_id: str,
    spacing: tuple[float, ...] | None,
) -> tuple[float, ...]:
    """Refuse what cannot be scored, and give the size of a pixel."""
    if prediction.shape != ground_truth.shape:
        raise ValueError(
            f"{case_id}: prediction {_size(prediction)} and ground truth {_size(ground_truth)} "
            f"differ in size"
        )
    if ground_truth.ndim not in (2, 3) or ground_truth.size == 0:
        raise ValueError(
            f"{case_id}: a mask has two or three axes, not the shape {ground_truth.shape}"
        )
    if MEAN in classes:
        raise ValueError(f"a class named {MEAN!r} would be confused with the mean over classes")
    size = (1.0,) * ground_truth.ndim if spacing is None else spacing
    if len(size) != ground_truth.ndim or not all(math.isfinite(side) and side > 0 for side in size):
        raise ValueError(f"{case_id}: spacing {spacing} does not fit a mask {_size(ground_truth)}")
    for name, mask in (("prediction", prediction), ("ground truth", ground_truth)):
        low, high = int(mask.min()), int(mask.max())
        if low < 0 or high >= len(classes):
            wrong = low if low < 0 else high
            raise ValueError(
                f"{case_id}: the {name} holds {wrong}, but classes go from 0 to {len(classes) - 1}"
            )
    return size


def _overlap(found: BoolArray, true: BoolArray) -> _Values:
    shared = np.count_nonzero(found & true)
    total = np.count_nonzero(found) + np.count_nonzero(true)
    if total == 0:
        return {"dice": 1.0, "iou": 1.0}
    return {"dice": 2 * shared / total, "iou": shared / (total - shared)}


def _find_boxes(
    prediction: npt.NDArray[np.integer], ground_truth: npt.NDArray[np.integer], *, classes: int
) -> list[tuple[slice, ...]]:
    """Give for each foreground class the box around it in both masks; of none an empty box.

    Two passes over the volume for all classes together: what follows costs by the size of the
    structures and not by that of the volume.
    """
    ours, theirs = (
        ndimage.find_objects(mask, max_label=classes - 1) for mask in (prediction, ground_truth)
    )
    boxes = []
    for pair in zip(ours, theirs, strict=True):
        known = [box for box in pair if box is not None]
        empty = (slice(0, 0),) * ground_truth.ndim
        boxes.append(
            tuple(
                slice(min(side.start for side in sides), max(side.stop for side in sides))
                for sides in zip(*known, strict=True)
            )
            if known
            else empty
        )
    return boxes


def _distances(
    found: BoolArray,
    true: BoolArray,
    *,
    size: tuple[float, ...],
    tolerance: float,
    diagonal: float,
) -> tuple[float | None, float | None, float | None]:
    """HD95, ASSD and NSD; the penalty for what is missed or imagined, nothing for two empties."""
    has_found, has_true = bool(found.any()), bool(true.any())
    if not (has_found or has_true):
        return None, None, None
    if not (has_found and has_true):
        return diagonal, diagonal, 0.0
    surfaces = measure_surfaces(found, true, spacing=size)
    return surfaces.hd95, surfaces.assd, surfaces.nsd(tolerance)


def _size(mask: npt.NDArray[np.integer]) -> str:
    return " x ".join(str(side) for side in mask.shape)
