"""Definitions of the segmentation metrics, used by all commands.

Each foreground class of each case is scored separately, on the grid of the file. Lengths are in
millimeters if the file has a spacing, otherwise in pixels. The name of the metric contains the unit
(`hd95_mm`, `hd95_px`). P and T are the pixels of a class in the prediction and in the reference
mask. The border of a mask is defined in `segnetr.metrics.surface`.

| metric | formula | both empty | missed | false alarm |
|---|---|---|---|---|
| `dice` | 2 |P & T| / (|P| + |T|) | 1 | 0 | 0 |
| `iou` | |P & T| / |P or T| | 1 | 0 | 0 |
| `isic_jaccard` | iou, or 0 below the threshold | 1 | 0 | 0 |
| `hd95_*` | larger of the two directed 95th percentiles | undefined | diagonal | diagonal |
| `assd_*` | mean over both borders of the distance to the other | undefined | diagonal | diagonal |
| `nsd_*` | share of both borders within the tolerance | undefined | 0 | 0 |

A structure is missed if only P is empty; it is a false alarm if only T is empty. The diagonal is
that of the whole image, corner to corner, so it is longer than any distance inside the image.
Undefined values are excluded from the mean, and their number is reported. `dice_pooled` sums the
pixels of all cases before dividing and exists in summaries only. Scores do not depend on how cases
were batched.
"""

from segnetr.metrics.score import PIXEL_COUNTS, CaseOutcome, Score, Summary, Unscored, name_outcome
from segnetr.metrics.scoring import score_masks
from segnetr.metrics.summary import MEAN, select_summary, summarize

__all__ = [
    "MEAN",
    "PIXEL_COUNTS",
    "CaseOutcome",
    "Score",
    "Summary",
    "Unscored",
    "name_outcome",
    "score_masks",
    "select_summary",
    "summarize",
]
