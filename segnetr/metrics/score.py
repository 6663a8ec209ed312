"""Types of scores: one value per case, and summaries over cases."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

GROUND_TRUTH_PIXELS = "ground_truth_pixels"
PREDICTED_PIXELS = "predicted_pixels"
SHARED_PIXELS = "shared_pixels"

#: Counts stored with the metrics of each case and class. Summaries derive missed structures and the
#: pooled Dice from them. They are never averaged.
PIXEL_COUNTS = (GROUND_TRUTH_PIXELS, PREDICTED_PIXELS, SHARED_PIXELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One value of one case and one foreground class.

    Attributes:
        case_id: Id of the case.
        class_name: Name of the foreground class.
        metric: Stored name of the metric, including any unit, or one of `PIXEL_COUNTS`.
        value: The value. None: undefined.
    """

    case_id: str
    class_name: str
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of one class over all cases.

    Attributes:
        class_name: Name of the foreground class. "mean": mean of each case over the classes.
        metric: Stored name of the metric.
        mean: Mean over the cases for which the metric is defined. `dice_pooled`: pooled value.
        std: Sample standard deviation (n - 1). None for fewer than two values or a pooled value.
        median: Median. None for a pooled value.
        low: Lower end of the 95 % bootstrap interval of `mean`. None for fewer than two patients.
        high: Upper end of the interval.
        cases: Number of scored cases, including those with an undefined value.
        missed: Cases in which only the ground truth has the class. In a "mean" row, this count and
            the next two are sums over the classes.
        false_alarms: Cases in which only the prediction has the class.
        both_empty: Cases in which neither has the class.
        undefined: Cases excluded from the mean.
    """

    class_name: str
    metric: str
    mean: float | None
    std: float | None
    median: float | None
    low: float | None
    high: float | None
    cases: int
    missed: int
    false_alarms: int
    both_empty: int
    undefined: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unscored:
    """A case without scores.

    Attributes:
        case_id: Id of the case.
        reason: One line with the reason and the files.
    """

    case_id: str
    reason: str


CaseOutcome = Literal["found", "missed", "false_alarm", "both_empty"]


def name_outcome(values: Mapping[str, float | None]) -> CaseOutcome:
    """Return the outcome of one case and class, derived from its pixel counts.

    "found" means that prediction and ground truth both contain the class. They may not overlap.

    Args:
        values: Value by metric, including the `PIXEL_COUNTS`.

    Raises:
        KeyError: If a count is missing.
    """
    if values[GROUND_TRUTH_PIXELS]:
        return "found" if values[PREDICTED_PIXELS] else "missed"
    return "false_alarm" if values[PREDICTED_PIXELS] else "both_empty"
