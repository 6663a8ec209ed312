"""How masks are scored: one rule, stated here and kept everywhere.

Every case and every foreground class is scored by itself, on the grid of the file. Lengths are in
millimeters where the file has spacing, else in pixels, and the name of the metric says which
(`hd95_mm`, `hd95_px`). With P and T the pixels of a class in the prediction and in the ground
truth, and
S(.) the border of a mask (`segnetr.metrics.surface`):

| metric | formula | both empty | ground truth missed | false alarm |
|---|---|---|---|---|
| `dice` | 2 |P & T| / (|P| + |T|) | 1 | 0 | 0 |
| `iou` | |P & T| / |P or T| | 1 | 0 | 0 |
| `isic_jaccard` | iou, or 0 below the threshold | 1 | 0 | 0 |
| `hd95_*` | larger of the two directed 95th percentiles | undefined | diagonal | diagonal |
| `assd_*` | mean over both borders of the distance to the other | undefined | diagonal | diagonal |
| `nsd_*` | share of both borders within the tolerance | undefined | 0 | 0 |

Missed means T is not empty and P is; false alarm the reverse. The diagonal is that of the whole
image, corner to corner, hence longer than any distance inside it. An undefined value is left out of
the mean and counted. `dice_pooled` adds the pixels of all cases before it divides, and exists in
summaries only. No score depends on how cases were batched.
"""

from segnetr.metrics.score import PIXEL_COUNTS, Outcome, Score, Summary, Unscored, name_outcome
from segnetr.metrics.scoring import score_masks
from segnetr.metrics.summary import MEAN, select_summary, summarize

__all__ = [
    "MEAN",
    "PIXEL_COUNTS",
    "Outcome",
    "Score",
    "Summary",
    "Unscored",
    "name_outcome",
    "score_masks",
    "select_summary",
    "summarize",
]
