"""Thumbnails are cached by content and show the middle slice of volumes."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segnetr.data.duplicates import thumbnail as module
from segnetr.data.duplicates.thumbnail import (
    SIDE,
    Thumbnail,
    collect_thumbnails,
    load_cached_thumbnails,
    make_thumbnail,
)
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.errors import ReadError

LIMIT = {"max_pixels": DEFAULT_MAX_PIXELS}


def write(path: Path, seed: int) -> Path:
    array = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(array).save(path)
    return path


@pytest.mark.slow
def test_known_files_are_not_decoded_again_but_changed_ones_are(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{i}.png", i) for i in range(3)]
    cache = tmp_path / "cache"
    assert load_cached_thumbnails(paths, folder=cache) is None
    first = collect_thumbnails(paths, folder=cache, workers=2, **LIMIT)
    assert all(isinstance(item, Thumbnail) and item.size == (40, 60) for item in first)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(module, "read_image", refuse)
    again = collect_thumbnails(paths, folder=cache, **LIMIT)
    assert [item.sha256 for item in again] == [item.sha256 for item in first]
    assert all(np.array_equal(a.gray, b.gray) for a, b in zip(again, first, strict=True))
    moved = paths[0].rename(tmp_path / "moved.png")
    assert collect_thumbnails([moved], folder=cache, **LIMIT)[0].sha256 == first[0].sha256
    monkeypatch.undo()

    write(paths[1], 9)
    os.utime(paths[1], ns=(1, 1))
    assert load_cached_thumbnails(paths[1:], folder=cache) is None
    changed = collect_thumbnails(paths[1:], folder=cache, **LIMIT)
    assert changed[0].sha256 != first[1].sha256
    assert changed[1].sha256 == first[2].sha256


def test_unreadable_files_do_not_stop_the_others(tmp_path):
    good, bad = write(tmp_path / "a.png", 0), tmp_path / "b.png"
    bad.write_bytes(good.read_bytes()[:200])
    found = collect_thumbnails([bad, good, tmp_path / "c.png"], folder=tmp_path / "x", **LIMIT)
    assert isinstance(found[0], ReadError)
    assert isinstance(found[1], Thumbnail)
    assert "c.png: cannot be read" in str(found[2])


def test_thumbnail_of_a_volume_shows_its_middle_slice(tmp_path):
    voxels = np.zeros((20, 30, 5), np.int16)
    voxels[..., 2] = np.arange(20)[:, None] * 50
    path = tmp_path / "v.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    (found,) = collect_thumbnails([path], folder=tmp_path / "cache", **LIMIT)
    assert found.size == (20, 30)
    assert found.gray[0].mean() < 20
    assert found.gray[-1].mean() > 235


def test_thumbnail_of_a_multi_channel_volume_shows_the_first_channel(tmp_path):
    voxels = np.zeros((20, 30, 5, 2), np.int16)
    voxels[:, :, 2, 0] = np.arange(20)[:, None] * 50
    voxels[:, :, 2, 1] = 1000 - voxels[:, :, 2, 0]
    path = tmp_path / "v.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    (found,) = collect_thumbnails([path], volume_channels=[2], folder=tmp_path / "cache", **LIMIT)
    assert found.size == (20, 30)
    assert found.gray[0].mean() < 20
    assert found.gray[-1].mean() > 235


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32])
def test_thumbnails_of_16_bit_and_8_bit_images_are_similar(kind):
    gray = np.random.default_rng(0).integers(0, 256, (64, 64, 1))
    plain = make_thumbnail(ImageFile(path=Path(), array=gray.astype(np.uint8), kind="image"))[1]
    deep = make_thumbnail(ImageFile(path=Path(), array=(gray * 17).astype(kind), kind="image"))
    assert deep[1].shape == (SIDE, SIDE)
    assert np.corrcoef(plain.ravel(), deep[1].ravel())[0, 1] > 0.999
