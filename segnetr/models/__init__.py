"""Networks: SegNetr, its parts, and the baselines it is compared with.

`SegNetrBlock` and `InformationRetentionSkip` (or `FusedUpsampling`, with the growing before it) fit
any U-shaped network; their channel and stride contracts stand in their descriptions.
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
