"""Metrics by name: title, unit, direction, and scoring function.

To add a metric per case, write a function of a `CaseMasks` and add one line to `_SPECS`. Scoring,
tables and comparisons read that table. This module imports neither torch nor numpy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from segnetr.errors import UsageError

if TYPE_CHECKING:
    from segnetr.metrics.case_masks import CaseMasks

Unit = Literal["", "length"]
Penalty = Literal["none", "zero", "diagonal"]

_SUFFIX = re.compile(r"_(?P<tolerance>[0-9][0-9.e+-]*)?(?:mm|px)$")


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """The description of one metric.

    Attributes:
        name: Base name, without unit and tolerance.
        title: Name in tables and reports.
        unit: "length": millimeters or pixels, and the stored name ends in `_mm` or `_px`. "": no
            unit.
        higher_is_better: Whether larger values are better.
        penalty: Value of a case with a missed structure or a false alarm. "zero": 0. "diagonal":
            the diagonal of the whole image. "none": the metric does not score single masks.
        both_empty: Value of a case if neither mask has the class. None: undefined.
        score: Returns the value of one case and class if both masks have the class. None: the
            metric is computed elsewhere, from pooled counts or from class probabilities.
        has_tolerance: The stored name contains the tolerance, as in `nsd_2mm`.
        binary_images_only: Only images with a single foreground class are scored.
    """

    name: str
    title: str
    unit: Unit
    higher_is_better: bool
    penalty: Penalty
    both_empty: float | None = None
    score: Callable[[CaseMasks], float] | None = None
    has_tolerance: bool = False
    binary_images_only: bool = False

    @property
    def perfect(self) -> float:
        """The best value: 1 for shares, 0 for distances and errors."""
        return 1.0 if self.higher_is_better else 0.0

    def stored_name(self, unit: str, *, tolerance: float) -> str:
        """Return the name in files, such as "dice", "hd95_mm" or "nsd_2px".

        Args:
            unit: Unit of lengths, "mm" or "px".
            tolerance: Tolerance of the surface Dice in that unit.
        """
        if self.has_tolerance:
            return f"{self.name}_{tolerance:g}{unit}"
        return f"{self.name}_{unit}" if self.unit == "length" else self.name


def _score_isic_jaccard(case: CaseMasks) -> float:
    return case.iou if case.iou >= case.isic_threshold else 0.0


# fmt: off
_SPECS: Final = (
    # Segmentation, one value per case and class, in the order of the tables.
    MetricSpec("dice", "Dice", "", True, "zero", 1.0, lambda case: case.dice),
    MetricSpec("iou", "IoU", "", True, "zero", 1.0, lambda case: case.iou),
    MetricSpec("isic_jaccard", "ISIC Jaccard", "", True, "zero", 1.0, _score_isic_jaccard, binary_images_only=True),  # noqa: E501
    MetricSpec("hd95", "HD95", "length", False, "diagonal", None, lambda case: case.surfaces.hd95),
    MetricSpec("assd", "ASSD", "length", False, "diagonal", None, lambda case: case.surfaces.assd),
    MetricSpec("nsd", "NSD", "", True, "zero", None, lambda case: case.surfaces.nsd(case.nsd_tolerance), has_tolerance=True),  # noqa: E501
    # Segmentation, from the pixel counts of all cases (segnetr.metrics.summary).
    MetricSpec("dice_pooled", "Pooled Dice", "", True, "none"),
    # Classification (segnetr.metrics.classification).
    MetricSpec("accuracy", "Accuracy", "", True, "none"),
    MetricSpec("top5_accuracy", "Top-5 accuracy", "", True, "none"),
    MetricSpec("exact_match", "Exact match", "", True, "none"),
    MetricSpec("balanced_accuracy", "Balanced accuracy", "", True, "none"),
    MetricSpec("auroc", "AUROC", "", True, "none"),
    MetricSpec("f1", "F1", "", True, "none"),
    MetricSpec("recall", "Recall", "", True, "none"),
    MetricSpec("specificity", "Specificity", "", True, "none"),
    MetricSpec("precision", "Precision", "", True, "none"),
    MetricSpec("calibration_error", "Calibration error", "", False, "none"),
)
# fmt: on

METRICS: Final[dict[str, MetricSpec]] = {spec.name: spec for spec in _SPECS}


def title_metric(name: str) -> str:
    """Return the title of a stored name: "HD95 (mm)" for "hd95_mm", "NSD at 2 px" for "nsd_2px".

    Raises:
        UsageError: If there is no such metric.
    """
    spec = get_metric(name)
    rest = name.removeprefix(f"{spec.name}_")
    if spec.has_tolerance:
        return f"{spec.title} at {rest[:-2]} {rest[-2:]}"
    return f"{spec.title} ({rest})" if spec.unit == "length" else spec.title


def get_metric(name: str) -> MetricSpec:
    """Return the metric of a base name ("hd95") or of a stored name ("hd95_mm", "nsd_0.5px").

    Raises:
        UsageError: If there is no such metric.
    """
    if name in METRICS:
        return METRICS[name]
    suffix = _SUFFIX.search(name)
    spec = METRICS.get(name[: suffix.start()]) if suffix else None
    if spec is not None and suffix is not None:
        if suffix["tolerance"] is not None and spec.has_tolerance:
            return spec
        if suffix["tolerance"] is None and spec.unit == "length":
            return spec
    nearest = difflib.get_close_matches(name, METRICS, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise UsageError(f"unknown metric {name!r}; {hint}choose one of {', '.join(METRICS)}")
