"""What a prediction writes, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segnetr.config.shards import Shard
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.workflows.prediction.ensemble import Ensemble


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What a prediction writes, and how.

    Attributes:
        changes: Settings put over the model's own `predict` section.
        ensemble: How several models answer: "mean" of their probabilities, "vote" for each pixel,
            or "soup", the mean of their weights.
        overlay: Write images with contours as well.
        save_prob: Write probabilities as well.
        save_uncertainty: Write maps of entropy, and of variance over views and networks.
        explain: With a classifier: write what its answers rest on as well.
        format_name: Format of the masks, one of `segnetr.outputs.masks.format.MASK_FORMATS`.
        series: SeriesInstanceUID of the DICOM series to take, where a folder holds several.
        skip_existing: Leave inputs alone whose results are there.
        shard: The part of the inputs to work on; None: that of the rank under torchrun, else all.
        max_memory: Most bytes of main memory that may be resident; None: no limit.
        device: Where the network runs.
        max_pixels: Larger images are refused before memory is taken for them.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    ensemble: Ensemble = "mean"
    overlay: bool = False
    save_prob: bool = False
    save_uncertainty: bool = False
    explain: bool = False
    format_name: str = "same"
    series: str | None = None
    skip_existing: bool = False
    shard: Shard | None = None
    max_memory: int | None = None
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS
