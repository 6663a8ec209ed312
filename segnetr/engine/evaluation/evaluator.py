"""Score pairs of masks, in memory or on disk, and summarize the scores."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, MaskFile
from segnetr.data.readers.read_files import read_mask_file
from segnetr.engine.evaluation.pairing import MaskPair
from segnetr.errors import ReadError
from segnetr.metrics import Score, Summary, Unscored, score_masks, summarize

# Affines of one grid, written by different programs, agree to float32: far below this, in mm.
_AFFINE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Scores of a set of cases.

    Attributes:
        scores: All values of all cases and classes.
        summaries: One row per class and metric. Empty if no case was scored.
        unscored: Cases without scores, each with its reason.
    """

    scores: tuple[Score, ...]
    summaries: tuple[Summary, ...]
    unscored: tuple[Unscored, ...]


def evaluate_pairs(
    pairs: Iterable[MaskPair],
    *,
    classes: Sequence[str],
    config: EvaluateConfig,
    patients: Mapping[str, str] | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Evaluation:
    """Score pairs of masks one at a time, so that only one pair is in memory.

    A pair that cannot be scored does not stop the others: an unreadable file, masks of different
    sizes, volumes on different grids, a repeated case.

    Args:
        pairs: The pairs. May be a generator that predicts on the fly.
        classes: Class names, background first.
        config: Tolerance, threshold and resampling.
        patients: Patient by case id, for the interval. Others are their own patient.
        max_pixels: Larger files are rejected before they are decoded.

    Raises:
        ValueError: If masks given as arrays contain values that are not a class.
    """
    scores: list[Score] = []
    unscored: list[Unscored] = []
    seen: set[str] = set()
    for pair in pairs:
        reason = None
        if pair.case_id in seen:
            reason = f"{pair.case_id}: a case of this name was already scored"
        else:
            seen.add(pair.case_id)
            try:
                scores += _score_pair(pair, classes=classes, config=config, max_pixels=max_pixels)
            except ReadError as error:
                reason = str(error)
        if reason is not None:
            unscored.append(Unscored(case_id=pair.case_id, reason=reason))
    summaries = summarize(scores, patients=patients, bootstrap=config.bootstrap, seed=config.seed)
    return Evaluation(scores=tuple(scores), summaries=tuple(summaries), unscored=tuple(unscored))


def _score_pair(
    pair: MaskPair, *, classes: Sequence[str], config: EvaluateConfig, max_pixels: int
) -> list[Score]:
    prediction = _load(pair.prediction, classes=len(classes), max_pixels=max_pixels)
    ground_truth = _load(pair.ground_truth, classes=len(classes), max_pixels=max_pixels)
    _check_grids(pair, prediction, ground_truth)
    return score_masks(
        prediction.array,
        ground_truth.array,
        classes=classes,
        case_id=pair.case_id,
        spacing=ground_truth.spacing or prediction.spacing or pair.spacing,
        nsd_tolerance=config.nsd_tolerance,
        isic_threshold=config.isic_threshold,
    )


def _load(mask: Path | NDArray[np.uint8] | MaskFile, *, classes: int, max_pixels: int) -> MaskFile:
    if isinstance(mask, MaskFile):
        return mask
    if isinstance(mask, Path):
        return read_mask_file(mask, classes=classes, max_pixels=max_pixels)
    return MaskFile(path=Path(), array=mask)


def _check_grids(pair: MaskPair, prediction: MaskFile, ground_truth: MaskFile) -> None:
    """Reject masks that are not on the same grid.

    Raises:
        ReadError: Naming the prediction and both grids.
    """
    named = pair.prediction if isinstance(pair.prediction, Path) else pair.case_id
    ours, theirs = prediction.array.shape, ground_truth.array.shape
    if ours != theirs:
        raise ReadError(
            named,
            f"the prediction is {_size(ours)}, the ground truth {_size(theirs)} (height x width, or"
            " X x Y x Z); scores need both on one grid",
        )
    if prediction.affine is None or ground_truth.affine is None:
        return
    distance = float(np.abs(prediction.affine - ground_truth.affine).max())
    if distance > _AFFINE_TOLERANCE:
        raise ReadError(
            named,
            f"its affine differs from the ground truth's by up to {distance:.3g}; scores need both "
            "on one grid",
        )


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape)
