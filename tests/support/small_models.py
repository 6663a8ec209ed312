"""Runs with a small network of random weights, for tests of prediction."""

from pathlib import Path

import torch

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import ModelCard, write_model


def make_model(
    folder: Path, seed: int, *, classes: int = 2, intensity: IntensityConfig | None = None
) -> Path:
    """Write a run with a small U-Net of random weights; with `intensity`, one of volumes."""
    card = ModelCard(
        architecture={"architecture": "unet", "width": 2},
        classes=tuple(f"c{number}" for number in range(classes)),
        in_channels=1,
        image_size=(32, 32),
        intensity=intensity or IntensityConfig(mean=(0.5,), std=(0.25,)),
        spatial_dims=2 if intensity is None else 3,
        predict=PredictConfig(mode="window", window_batch=2),
    )
    torch.manual_seed(seed)
    network = build_model(
        card.architecture, in_channels=1, num_classes=classes, image_size=card.image_size
    )
    with torch.no_grad():
        # So that each class is somewhere the likeliest.
        answer = network.eval()(torch.randn(4, 1, 32, 32))
        list(network.parameters())[-1].sub_(answer.mean(dim=(0, 2, 3)))
    write_model(folder / "model", network.state_dict(), card=card)
    return folder
