"""Test that reading a volume plane by plane gives the values and errors of reading it whole."""

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.nifti import read_volume
from segnetr.data.readers.nifti_stream import VolumeFile, open_volume
from segnetr.data.volumes.percentiles import find_percentiles
from segnetr.data.volumes.slice_stack import open_stack
from segnetr.data.volumes.streamed_stack import open_streamed_stack
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.slice_inferer import BatchPlan
from segnetr.errors import ReadError

LIMIT = 10**7
PLAIN = IntensityConfig(mean=(0.0,), std=(1.0,))
KINDS = {
    "percentiles": IntensityConfig(kind="percentiles"),
    "per_volume": IntensityConfig(kind="per_volume"),
    "window": IntensityConfig(kind="window", low=-20.0, high=300.0),
    "fixed": PLAIN,
}


def write(path: Path, values: np.ndarray, *, slope: float | None = None) -> Path:
    image = nib.Nifti1Image(values, np.diag([1.5, 2.0, 3.0, 1.0]))
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(slope, -3.0)
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


def draw(dtype: Any, shape: tuple[int, ...] = (11, 9, 7)) -> np.ndarray:
    values = np.random.default_rng(4).normal(60, 80, shape)
    values[:3] = 0
    return np.clip(values, 0, 255).astype(dtype) if dtype == np.uint8 else values.astype(dtype)


def open_file(path: Path, channels: int = 1) -> VolumeFile:
    return open_volume(path, max_pixels=LIMIT, channels=channels)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("dtype", "slope"), [(np.int16, None), (np.float32, None), (">i2", 0.37)])
def test_streamed_slices_equal_those_of_the_whole_volume(
    name: str, kind: str, axis: int, dtype: Any, slope: float | None, tmp_path: Path
) -> None:
    path = write(tmp_path / name, draw(dtype), slope=slope)
    slices = SliceConfig(axis=axis, neighbors=1, spacing_mm=2.0)  # type: ignore[arg-type]
    whole = open_stack(read_volume(path, max_pixels=LIMIT), slices, KINDS[kind])
    for block_bytes in (1, 1 << 20):
        stack = open_streamed_stack(open_file(path), slices, KINDS[kind], block_bytes=block_bytes)
        assert (stack.plane, stack.depth) == (whole.plane, whole.depth)
        for index in [*range(stack.depth), 0, 4]:
            seen, expected = stack.view(index), whole.view(index)
            assert seen.dtype == expected.dtype
            # A percentile may differ in its last bit, and thus a value by one of 65535 steps.
            np.testing.assert_allclose(seen, expected, atol=1 if seen.dtype == np.uint16 else 0)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_streamed_channels_equal_those_of_the_whole_volume(name: str, tmp_path: Path) -> None:
    values = np.stack([draw(np.int16), 3 * draw(np.int16)], axis=-1)
    path = write(tmp_path / name, values)
    volume = open_file(path, channels=2)
    planes = np.stack(list(volume.read_planes()), axis=2)
    np.testing.assert_array_equal(planes, values)
    stack = open_streamed_stack(volume, SliceConfig(), KINDS["percentiles"], block_bytes=1)
    whole = open_stack(volume.load(), SliceConfig(), KINDS["percentiles"])
    np.testing.assert_allclose(stack.view(3), whole.view(3), atol=1)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_prediction_of_a_streamed_volume_equals_that_of_the_whole_volume(
    name: str, tmp_path: Path
) -> None:
    class Edges(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.layer = nn.Conv2d(3, 4, 5, padding=2)

        def forward(self, image: Tensor) -> Tensor:
            return 3 * self.layer(image)

    path = write(tmp_path / name, draw(np.int16, (30, 25, 6)))
    for axis in (0, 2):
        predictor = Predictor(
            Edges(),
            config=PredictConfig(mode="window"),
            intensity=KINDS["window"],
            image_size=(16, 16),
            num_classes=4,
            channels=3,
            slices=SliceConfig(axis=axis, neighbors=1),  # type: ignore[arg-type]
        )
        whole = predictor.predict(read_volume(path, max_pixels=LIMIT)).labels
        predictor.set_batch_plan(BatchPlan(windows=1, tta_batch=1, block_bytes=1))
        done: list[tuple[int, int]] = []
        found = predictor.predict(open_file(path), advance=lambda *pair: done.append(pair)).labels  # noqa: B023
        assert found.shape == (30, 25, 6)
        assert (found != whole).mean() < 1e-3
        depth = found.shape[axis]
        assert done == [(number, depth) for number in range(1, depth + 1)]


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "i4", "u4", "f4", "f8", "i8"])
def test_percentiles_equal_those_of_numpy(dtype: str) -> None:
    random = np.random.default_rng(7)
    for values in (
        random.normal(0, 50, 999).astype(dtype),
        np.full(3, 5, dtype=dtype),
        random.integers(0, 3, 1000).astype(dtype),
        np.array([7], dtype=dtype),
    ):
        for percents in ((0.5, 99.5), (0.0, 100.0), (33.3, 50.0)):
            found = find_percentiles(
                lambda values=values: iter(np.array_split(values, 3)),
                percents,
                dtype=values.dtype,
                count=values.size,
            )
            expected = np.percentile(values.astype(np.float64), percents)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file_is_rejected_on_opening(name: str, share: float, tmp_path: Path) -> None:
    path = write(tmp_path / name, draw(np.int16))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (open_volume, read_volume):
        with pytest.raises(ReadError, match=r"a\.nii.*: (cut off|the file is empty|damaged)"):
            read(path, max_pixels=LIMIT)


def test_damaged_volume_is_rejected_on_opening(tmp_path: Path) -> None:
    holes = draw(np.float32)
    holes[3, 3, 3] = np.nan
    with pytest.raises(ReadError, match="1 of 693 values are NaN"):
        open_file(write(tmp_path / "a.nii.gz", holes))
    path = write(tmp_path / "b.nii.gz", draw(np.int16))
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    with pytest.raises(ReadError, match="damaged gzip data"):
        open_file(path)
    path = write(tmp_path / "c.nii", draw(np.int16))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ReadError, match="longer than its header says"):
        open_file(path)
    with pytest.raises(ReadError, match="more than the limit of 100"):
        open_volume(path, max_pixels=100)


def test_file_that_shrinks_after_opening_is_rejected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii", draw(np.int16))
    volume = open_file(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReadError, match="it changed while it was read"):
        list(volume.read_planes())
