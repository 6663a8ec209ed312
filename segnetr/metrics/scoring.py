"""Score one case."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segnetr.metrics.case_masks import CaseMasks
from segnetr.metrics.registry import METRICS, MetricSpec
from segnetr.metrics.score import GROUND_TRUTH_PIXELS, PREDICTED_PIXELS, SHARED_PIXELS, Score
from segnetr.metrics.summary import MEAN


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
    """Score each foreground class of one case on the grid of the masks.

    Args:
        prediction: Class indices, (H, W) or (X, Y, Z).
        ground_truth: Like `prediction`, on the same grid.
        classes: Class names, background first. The background is not scored.
        case_id: Id of the case, used in scores and messages.
        spacing: Size of a pixel along each axis in millimeters. None: lengths are in pixels.
        nsd_tolerance: Tolerance of the normalized surface Dice, in the unit of the lengths.
        isic_threshold: IoU below this counts as 0 in `isic_jaccard`, a metric of images with one
            foreground class.

    Returns:
        For each foreground class `dice`, `iou`, `isic_jaccard` if it applies, `hd95_*`, `assd_*`,
        `nsd_*` and the three `PIXEL_COUNTS`, as defined in `segnetr.metrics`.

    Raises:
        ValueError: If the grids differ, the spacing does not fit, a label is not a valid class, or
            a class has the reserved name "mean".
    """
    size = _check(prediction, ground_truth, classes=classes, case_id=case_id, spacing=spacing)
    specs = _select_metrics(
        "px" if spacing is None else "mm",
        nsd_tolerance=nsd_tolerance,
        is_binary_image=ground_truth.ndim == 2 and len(classes) == 2,
    )
    diagonal = math.hypot(
        *(count * side for count, side in zip(ground_truth.shape, size, strict=True))
    )
    scores: list[Score] = []
    boxes = _find_boxes(prediction, ground_truth, classes=len(classes))
    for index, class_name in enumerate(classes[1:], start=1):
        box = boxes[index - 1]
        case = CaseMasks(
            predicted=prediction[box] == index,
            true=ground_truth[box] == index,
            spacing=size,
            nsd_tolerance=nsd_tolerance,
            isic_threshold=isic_threshold,
        )
        values = {name: _score(spec, case, diagonal=diagonal) for name, spec in specs.items()}
        values |= {
            GROUND_TRUTH_PIXELS: float(case.true_pixels),
            PREDICTED_PIXELS: float(case.predicted_pixels),
            SHARED_PIXELS: float(case.shared_pixels),
        }
        scores += [
            Score(case_id=case_id, class_name=class_name, metric=metric, value=value)
            for metric, value in values.items()
        ]
    return scores


def _select_metrics(
    unit: str, *, nsd_tolerance: float, is_binary_image: bool
) -> dict[str, MetricSpec]:
    """Return the metrics that apply to a case, by their stored names."""
    return {
        spec.stored_name(unit, tolerance=nsd_tolerance): spec
        for spec in METRICS.values()
        if spec.score is not None and (is_binary_image or not spec.binary_images_only)
    }


def _score(spec: MetricSpec, case: CaseMasks, *, diagonal: float) -> float | None:
    """Return the value of one metric, or its penalty if only one of the masks is empty."""
    assert spec.score is not None
    if not (case.predicted_pixels or case.true_pixels):
        return spec.both_empty
    if not (case.predicted_pixels and case.true_pixels):
        return diagonal if spec.penalty == "diagonal" else 0.0
    return spec.score(case)


def _check(
    prediction: npt.NDArray[np.integer],
    ground_truth: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
    case_id: str,
    spacing: tuple[float, ...] | None,
) -> tuple[float, ...]:
    """Check the masks and return the pixel size along each axis."""
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
        _check_classes(mask, name=name, classes=len(classes), case_id=case_id)
    return size


def _check_classes(mask: npt.NDArray[np.integer], *, name: str, classes: int, case_id: str) -> None:
    """Raise ValueError if a mask contains a value that is not a class index."""
    low, high = int(mask.min()), int(mask.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{case_id}: the {name} holds {wrong}, but classes go from 0 to {classes - 1}"
        )


def _find_boxes(
    prediction: npt.NDArray[np.integer], ground_truth: npt.NDArray[np.integer], *, classes: int
) -> list[tuple[slice, ...]]:
    """Return the bounding box of each foreground class in both masks; empty without pixels.

    This takes two passes over the volume for all classes. The cost of the metrics then depends on
    the size of the structures, not on that of the volume.
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


def _size(mask: npt.NDArray[np.integer]) -> str:
    return " x ".join(str(side) for side in mask.shape)
