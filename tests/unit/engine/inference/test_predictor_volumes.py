"""Volumes through a predictor: what training saw, on the grid of the file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.volume_files import MIRRORED, OBLIQUE, draw_volume, write_nifti
from torch import Tensor, nn

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.augmentation.transforms import training_transform
from segnetr.data.cache.segmentation import CacheSettings, build_cache
from segnetr.data.cache.volumes import VolumeSettings
from segnetr.data.case import Batch, Case
from segnetr.data.loading.loaders import ResumableSampler, training_loader
from segnetr.data.loading.volume_slices import list_slices
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.training.volume_task import VolumeTask, load_volumes
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.masks.writer import write_prediction

PERCENTILES = IntensityConfig(kind="percentiles")
STILL = AugmentConfig(
    flip=False, rotate_degrees=0.0, scale=(1.0, 1.0), shift=0.0, brightness=0.0, contrast=0.0,
    saturation=0.0, hue=0.0, blur=0.0, noise=0.0,
)  # fmt: skip


class Bright(nn.Module):
    """Says foreground where the middle channel is above 0, and keeps what it was shown."""

    def __init__(self, middle: int = 0) -> None:
        super().__init__()
        self.middle = middle
        self.seen: list[Tensor] = []

    def forward(self, image: Tensor) -> Tensor:
        self.seen.append(image.clone())
        bright = image[:, self.middle : self.middle + 1]
        return torch.cat([-bright, bright], dim=1) * 20


def make_predictor(model: nn.Module, **changes: Any) -> Predictor:
    settings = {
        "config": PredictConfig(mode="window"),
        "intensity": PERCENTILES,
        "image_size": (32, 32),
        "num_classes": 2,
        "channels": 1,
        "slices": SliceConfig(spacing_mm=1.5),  # type: ignore[arg-type]
    }
    return Predictor(model, **{**settings, **changes})


def as_file(array: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.5, 3.0)) -> ImageFile:
    return ImageFile(
        path=Path("drawn.nii"), array=array, kind="volume", spacing=spacing, affine=np.eye(4)
    )


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return float(2 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("mode", ["resize", "window"])
@pytest.mark.parametrize("shape", [(31, 43, 26), (60, 70, 5), (1, 40, 3)])
def test_labels_of_small_and_large_volumes_are_on_their_own_grid(
    axis: int, mode: str, shape: tuple[int, int, int]
) -> None:
    values, labels = draw_volume(shape)
    spacing = (1.5, 1.5) if mode == "window" else None
    slices = SliceConfig(axis=axis, spacing_mm=spacing)  # type: ignore[arg-type]
    predictor = make_predictor(Bright(), config=PredictConfig(mode=mode), slices=slices)
    found = predictor.predict(as_file(values, (1.5, 1.5, 1.5)), keep_probabilities=True)
    assert found.labels.shape == shape
    assert found.probabilities is not None
    assert found.probabilities.shape == (2, *shape)
    if min(shape) > 4:
        assert dice(found.labels, labels) > (0.99 if mode == "window" else 0.9)


def test_volumes_of_other_pixel_sizes_are_resampled_and_labeled_on_their_own_grid() -> None:
    values, labels = draw_volume((40, 40, 6))
    coarse = make_predictor(Bright(), slices=SliceConfig(spacing_mm=2.0))  # type: ignore[arg-type]
    found = coarse.predict(as_file(values, (1.0, 1.0, 3.0))).labels
    assert found.shape == values.shape
    assert dice(found, labels) > 0.9


def test_prediction_and_training_give_the_network_the_same_input(tmp_path: Path) -> None:
    """Slices with neighbors, resampled, padded, normalized: from the cache and from the file."""
    values, labels = draw_volume((20, 24, 6))
    affine = np.diag([3.0, 3.0, 5.0, 1.0])
    case = Case(
        case_id="c",
        image=write_nifti(tmp_path / "c.nii.gz", values, affine),
        mask=write_nifti(tmp_path / "c_gt.nii.gz", labels, affine),
    )
    for kind in ("percentiles", "per_volume"):
        intensity = IntensityConfig(kind=kind)  # type: ignore[arg-type]
        slices = SliceConfig(neighbors=1, spacing_mm=2.0)  # type: ignore[arg-type]
        how = VolumeSettings(axis=2, spacing_mm=slices.spacing_mm, intensity=intensity)
        settings = CacheSettings(side=1000, channels=1, classes=2, volume=how)
        entries = build_cache([case], settings, folder=tmp_path, workers=0).entries
        samples = list_slices(list(entries.values()), neighbors=1, empty_share=1.0)
        transform = training_transform(
            STILL, image_size=(48, 40), intensity=intensity, channels=3, color=False, crop=True
        )
        sampler = ResumableSampler(6, batch_size=6, seed=0, steps=1)
        (batch,) = training_loader(samples, transform, sampler=sampler, workers=0, seed=0)
        model = Bright(middle=1)
        predictor = make_predictor(
            model, intensity=intensity, slices=slices, channels=3, image_size=(48, 40)
        )
        predictor.predict(read_image(case.image))
        shown = torch.cat(model.seen)
        order = [int(name.split("#")[1]) for name in batch["case_id"]]
        torch.testing.assert_close(batch["image"], shown[order], atol=1e-3, rtol=0)


@pytest.mark.parametrize("affine", [OBLIQUE, MIRRORED])
def test_masks_of_oblique_and_mirrored_files_keep_header_and_position(
    tmp_path: Path, affine: np.ndarray
) -> None:
    values, labels = draw_volume((20, 24, 6))
    path = write_nifti(tmp_path / "scan.nii.gz", values, affine)
    image = read_image(path)
    predictor = make_predictor(Bright(), slices=SliceConfig(spacing_mm=None))
    found = predictor.predict(image)
    assert dice(found.labels, labels) > 0.99
    write_prediction(found, image, out=tmp_path / "out", relative=Path("scan.nii.gz"))
    written = read_image(tmp_path / "out" / "scan.nii.gz")
    np.testing.assert_array_equal(written.affine, image.affine)
    np.testing.assert_array_equal(written.array, found.labels)


def test_modalities_are_channels_and_the_mask_has_no_channel_axis(tmp_path: Path) -> None:
    values, labels = draw_volume((20, 24, 6))
    both = np.stack([np.full_like(values, 7), values], axis=-1)
    path = write_nifti(tmp_path / "scan.nii.gz", both)
    with pytest.raises(ReadError, match=r"it has 4 axes \(20, 24, 6, 2\); volumes of three"):
        read_image(path)
    with pytest.raises(ReadError, match="a fourth of 3 channels"):
        read_image(path, volume_channels=3)
    image = read_image(path, volume_channels=2)
    found = make_predictor(Bright(middle=1), channels=2).predict(image)
    assert dice(found.labels, labels) > 0.99
    write_prediction(found, image, out=tmp_path, relative=Path("mask.nii.gz"), overlay=True)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.nii.gz", classes=2), found.labels)
    assert read_image(tmp_path / "mask.nii.gz").warnings == ()  # three axes and no more


def test_validation_scores_whole_volumes_on_the_grid_of_their_files(tmp_path: Path) -> None:
    cases = []
    for number, shape in enumerate([(20, 24, 6), (33, 18, 9)]):
        values, labels = draw_volume(shape, seed=number)
        if number:
            labels[:] = 0  # all that is found is wrong
        cases.append(
            Case(
                case_id=f"c{number}",
                image=write_nifti(tmp_path / f"{number}.nii.gz", values),
                mask=write_nifti(tmp_path / f"{number}_gt.nii.gz", labels),
            )
        )

    def loss(logits: Tensor, mask: Tensor) -> Tensor:
        return logits.mean() + mask.sum()

    def predict(model: nn.Module, volume: ImageFile) -> np.ndarray:
        return make_predictor(model).predict(volume).labels

    task = VolumeTask(loss, num_classes=2, predict=predict)
    batches = list(load_volumes(cases, channels=1, classes=2, max_pixels=10**6))
    assert task.validate(Bright(), batches[:1])["dice"] > 0.99
    assert task.validate(Bright(), batches)["dice"] == pytest.approx(0.5, abs=0.01)
    empty: list[Batch] = []
    with pytest.raises(UsageError, match="no case for validation"):
        task.validate(Bright(), empty)
