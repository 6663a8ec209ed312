"""Match predictions with ground truth by file name."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.file_list import list_images
from segnetr.data.readers.image_file import SUPPORTED_SUFFIXES, MaskFile
from segnetr.errors import UsageError
from segnetr.metrics import Unscored

__all__ = ["MaskPair", "Unscored", "pair_folders"]

_MASK_ENDS = ("_segmentation", "_mask", "_seg", "_label", "_gt")
# Files that `segnetr predict` writes next to a mask.
_COMPANION_ENDS = ("_overlay", "_prob")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskPair:
    """Prediction and ground truth of one case.

    Attributes:
        case_id: Id of the case, unique in an evaluation.
        prediction: A mask file, or class indices (H, W) or (X, Y, Z).
        ground_truth: As `prediction`, on the same grid, or a mask that was already read.
        spacing: Pixel size along each axis in mm for masks whose files have none. None: unknown.
    """

    case_id: str
    prediction: Path | NDArray[np.uint8]
    ground_truth: Path | NDArray[np.uint8] | MaskFile
    spacing: tuple[float, ...] | None = None


def pair_folders(predictions: Path, ground_truth: Path) -> tuple[list[MaskPair], list[Unscored]]:
    """Match the masks of two folders by name.

    Two files match if their sub-folder and their stem are equal, ignoring case; `.nii.gz` is one
    suffix. An ending `_segmentation`, `_mask`, `_seg`, `_label` or `_gt` is removed on either side
    first, so that `ISIC_0000001.png` matches `ISIC_0000001_segmentation.png`. Files that `segnetr
    predict` writes next to a mask (`x_overlay.png`, `x_prob.png`) are ignored.

    Args:
        predictions: Folder of predicted masks.
        ground_truth: Folder of true masks.

    Returns:
        The pairs in the order of their names, and the files with no match or several.

    Raises:
        UsageError: If a folder is missing or contains no image, or nothing matches.
    """
    for folder in (predictions, ground_truth):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder of masks")
    found = _index_folder(predictions, drop_companions=True)
    true = _index_folder(ground_truth, drop_companions=False)
    pairs: list[MaskPair] = []
    unscored: list[Unscored] = []
    for key in sorted(found.keys() | true.keys()):
        ours, theirs = found.get(key, []), true.get(key, [])
        case_id = _strip_end(_stem((theirs or ours)[0][1]))
        if len(ours) == len(theirs) == 1:
            pairs.append(
                MaskPair(case_id=case_id, prediction=ours[0][0], ground_truth=theirs[0][0])
            )
        else:
            reason = _describe_mismatch(
                ours, theirs, predictions=predictions, ground_truth=ground_truth
            )
            unscored.append(Unscored(case_id=case_id, reason=reason))
    if not pairs:
        raise UsageError(
            f"no mask in {predictions} has the name of one in {ground_truth}; first: "
            f"{unscored[0].reason}"
        )
    return pairs, unscored


_Files = list[tuple[Path, Path]]  # (path, path relative to its folder)


def _index_folder(folder: Path, *, drop_companions: bool) -> dict[str, _Files]:
    files = list_images([folder])
    stems = {_stem(relative) for _, relative in files}
    index: dict[str, _Files] = defaultdict(list)
    for path, relative in files:
        stem = _stem(relative)
        if drop_companions and any(stem.removesuffix(end) in stems - {stem}
                                   for end in _COMPANION_ENDS):  # fmt: skip
            continue
        index[_strip_end(stem).lower()].append((path, relative))
    return index


def _stem(relative: Path) -> str:
    name = relative.as_posix()
    # Longest first, so that .nii.gz is cut whole.
    for suffix in sorted(SUPPORTED_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _strip_end(stem: str) -> str:
    end = next((end for end in _MASK_ENDS if stem.lower().endswith(end)), "")
    stripped = stem[: len(stem) - len(end)]
    return stripped if stripped and not stripped.endswith("/") else stem


def _describe_mismatch(
    ours: Sequence[tuple[Path, Path]],
    theirs: Sequence[tuple[Path, Path]],
    *,
    predictions: Path,
    ground_truth: Path,
) -> str:
    if not ours:
        return f"{theirs[0][0]}: no prediction of this name in {predictions}"
    if not theirs:
        return f"{ours[0][0]}: no ground truth of this name in {ground_truth}"
    many, folder = (ours, predictions) if len(ours) > 1 else (theirs, ground_truth)
    names = ", ".join(str(relative) for _, relative in many)
    return f"{folder}: {len(many)} masks of one case ({names}); keep one of them"
