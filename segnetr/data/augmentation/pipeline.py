"""The one place where albumentations is imported, so that it is told first to ask no network."""

import os
from typing import TypeAlias

# albumentations asks the network for a newer version when it is imported, unless told not to.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # type: ignore[import-untyped]

Pipeline: TypeAlias = A.Compose

__all__ = ["A", "Pipeline"]
