"""Modules that a cold start imports: none of the heavy libraries that the command does not use."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig, SegNetrConfig
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import ModelCard, write_model

# Runs the command line and prints the top-level names of all modules that it imported.
CHILD = """
import json, sys
from segnetr.cli.main import application
try:
    application(sys.argv[1:], standalone_mode=False)
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps(sorted(sys.modules)))
"""


def list_imports(*arguments: str) -> set[str]:
    """Return the names of the modules in `sys.modules` after a command, in a new process."""
    result = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(json.loads(result.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def after_predict(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the modules that `segnetr predict` of one PNG imports."""
    folder = tmp_path_factory.mktemp("cold_start")
    torch.manual_seed(0)
    card = ModelCard(
        architecture=SegNetrConfig(width=8, mixing="position"),
        classes=("background", "lesion"),
        in_channels=3,
        image_size=(32, 32),
        intensity=IntensityConfig(),
        predict=PredictConfig(),
    )
    network = build_model(card.architecture, in_channels=3, num_classes=2, image_size=(32, 32))
    write_model(folder / "model", network.state_dict(), card=card)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    imports = list_imports(
        "predict", str(folder / "image.png"), "--model", str(folder / "model"),
        "--out", str(folder / "masks"), "--device", "cpu", "--quiet",
    )  # fmt: skip
    assert (folder / "masks" / "image.png").is_file()
    return imports


@pytest.mark.parametrize(
    "library",
    ["monai", "SimpleITK", "albumentations", "sklearn", "ignite", "transformers", "accelerate",
     "tensorboard", "scipy.stats", "scipy.ndimage", "torch._dynamo", "highdicom"],
)  # fmt: skip
def test_predicting_one_png_does_not_import(after_predict: set[str], library: str) -> None:
    assert "torch" in after_predict
    assert library not in after_predict


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_and_version_import_neither_torch_nor_numpy(flag: str) -> None:
    imports = list_imports(flag)
    assert not imports & {"torch", "numpy", "monai", "scipy"}
