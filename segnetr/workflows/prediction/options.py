"""Options of `segnetr predict`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segnetr.config.shards import Shard
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.workflows.prediction.ensemble import Ensemble


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """Options of `segnetr predict`.

    Attributes:
        changes: Settings that override the model's own `predict` section.
        ensemble: How several models are combined: "mean" of their probabilities, "vote" for each
            pixel, or "soup", the mean of their weights.
        overlay: Write overlay images as well.
        save_prob: Write probabilities as well.
        save_uncertainty: Write maps of entropy, and of variance over augmentations and networks.
        explain: With a classifier: write explanations as well.
        format_name: Format of the masks, one of `segnetr.outputs.masks.format.MASK_FORMATS`.
        series: SeriesInstanceUID of the DICOM series to read if a folder contains several.
        skip_existing: Skip inputs whose results exist.
        shard: Share of the inputs to work on. None: that of the rank under torchrun, else all.
        max_memory: Limit of resident main memory in bytes. None: no limit.
        device: Device of the network.
        max_pixels: Larger images are rejected before they are decoded.
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
