"""What scoring gives: one value of one case, and what many of them come to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

GROUND_TRUTH_PIXELS = "ground_truth_pixels"
PREDICTED_PIXELS = "predicted_pixels"
SHARED_PIXELS = "shared_pixels"

#: Counts that stand beside the metrics of each case and class: from them a summary knows what was
#: missed, and pools. They are never averaged.
PIXEL_COUNTS = (GROUND_TRUTH_PIXELS, PREDICTED_PIXELS, SHARED_PIXELS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One value of one case and one foreground class.

    Attributes:
        case_id: The case.
        class_name: The foreground class.
        metric: Name of the metric, with its unit where it has one; or one of `PIXEL_COUNTS`.
        value: The value; None where it is undefined.
    """

    case_id: str
    class_name: str
    metric: str
    value: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric of one class over all cases.

    Attributes:
        class_name: The foreground class; "mean": each case's mean over the classes.
        metric: Name of the metric.
        mean: Mean over the cases where the metric is defined; of `dice_pooled` the pooled value.
        std: Sample standard deviation (n - 1); None for fewer than two values or a pooled value.
        median: Median; None for a pooled value.
        low: Lower end of the 95 % bootstrap interval of `mean`; None for fewer than two patients.
        high: Upper end.
        cases: Cases that were scored, whether the metric was defined or not.
        missed: Cases where the ground truth has the class and the prediction has not; in a "mean"
            row
            these counts are sums over the classes.
        false_alarms: Cases where the prediction has the class and the ground truth has not.
        both_empty: Cases where neither has it.
        undefined: Cases left out of the mean.
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
        case_id: The case.
        reason: Why, in one line that names the files.
    """

    case_id: str
    reason: str


Outcome = Literal["found", "missed", "false_alarm", "both_empty"]


def name_outcome(values: Mapping[str, float | None]) -> Outcome:
    """Tell from the pixel counts of one case and class which of the four outcomes it is.

    "found" says only that prediction and ground truth both hold the class, not that they meet.

    Args:
        values: Value by metric, with the `PIXEL_COUNTS`.

    Raises:
        KeyError: If a count is missing.
    """
    if values[GROUND_TRUTH_PIXELS]:
        return "found" if values[PREDICTED_PIXELS] else "missed"
    return "false_alarm" if values[PREDICTED_PIXELS] else "both_empty"
