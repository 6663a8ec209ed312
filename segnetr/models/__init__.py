"""Networks: SegNetr, its modules, and the baselines it is compared with.

`SegNetrBlock` and `InformationRetentionSkip` (or `FusedUpsampling`, which includes the upsampling)
fit any U-shaped network. Their docstrings state the requirements on channels and strides.
"""

from segnetr.models.segnetr.blocks import BlockSettings, SegNetrBlock
from segnetr.models.segnetr.skip import (
    FusedUpsampling,
    InformationRetentionSkip,
    merge_patches,
    reverse_patches,
)

__all__ = [
    "BlockSettings",
    "FusedUpsampling",
    "InformationRetentionSkip",
    "SegNetrBlock",
    "merge_patches",
    "reverse_patches",
]
