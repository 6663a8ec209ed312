"""Imports of the data package, which determine how fast commands and worker processes start."""

import subprocess
import sys

import pytest

SLOW = ("torch", "monai", "SimpleITK", "albumentations")

MODULES = (
    "segnetr.data.cache.classification",
    "segnetr.data.cache.segmentation",
    "segnetr.data.case",
    "segnetr.data.classification.open",
    "segnetr.data.datasets.registry",
    "segnetr.data.duplicates.search",
    "segnetr.data.preprocessing.intensity",
    "segnetr.data.splits.split_cases",
    "segnetr.data.validation.audit",
    "segnetr.data.volumes.slice_stack",
    "segnetr.data.volumes.streamed_stack",
)


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_module_imports_none_of_the_slow_packages(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {SLOW} if name in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert result.stdout.split() == []
