"""The only import of albumentations, which first disables its online version check."""

import os
from typing import TypeAlias

# On import, albumentations looks online for a newer version unless this variable is set.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A  # type: ignore[import-untyped]

Pipeline: TypeAlias = A.Compose

__all__ = ["A", "Pipeline"]
