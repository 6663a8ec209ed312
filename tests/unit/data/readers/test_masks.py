"""Test which values are accepted as a mask."""

import io
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segnetr.data.readers.read_files import read_mask, read_mask_file
from segnetr.errors import ReadError

Y, X = np.mgrid[:64, :80]
GROUND_TRUTH = (((Y - 30) / 18.0) ** 2 + ((X - 41) / 25.0) ** 2 < 1).astype(np.uint8)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def save_palette(path: Path, indices: np.ndarray, colors: dict[int, tuple[int, ...]]) -> Path:
    palette = np.zeros((256, 3), dtype=np.uint8)
    for index, color in colors.items():
        palette[index] = color
    paletted = Image.fromarray(indices.astype(np.uint8))
    paletted.putpalette(palette.tobytes())
    paletted.save(path)
    return path


BINARY = {
    "0 and 255": GROUND_TRUTH * 255,
    "0 and 1": GROUND_TRUTH,
    "true and false": GROUND_TRUTH.astype(bool),
    "equal channels": np.repeat(GROUND_TRUTH[..., None] * 255, 3, -1),
    "with alpha": np.dstack([GROUND_TRUTH * 255] * 3 + [np.full_like(GROUND_TRUTH, 255)]),
    "16 bit": GROUND_TRUTH.astype(np.uint16) * 65535,
    "16 bit, 0 and 1": GROUND_TRUTH.astype(np.uint16),
}


@pytest.mark.parametrize("kind", BINARY)
def test_binary_mask_of_any_encoding_is_read_as_zero_and_one(kind: str, tmp_path: Path) -> None:
    mask = read_mask(save(tmp_path / "m.png", BINARY[kind]), classes=2)
    assert mask.dtype == np.uint8
    assert np.array_equal(mask, GROUND_TRUTH)


@pytest.mark.parametrize("name", ["m.bmp", "m.tif"])
def test_one_bit_mask_is_read_as_zero_and_one(name: str, tmp_path: Path) -> None:
    assert np.array_equal(
        read_mask(save(tmp_path / name, GROUND_TRUTH.astype(bool)), classes=2), GROUND_TRUTH
    )


def test_empty_and_full_masks_are_accepted(tmp_path: Path) -> None:
    assert not read_mask(save(tmp_path / "e.png", GROUND_TRUTH * 0), classes=2).any()
    full = np.full_like(GROUND_TRUTH, 255)
    assert read_mask(save(tmp_path / "f.png", full), classes=2).all()


def test_class_indices_are_unchanged_and_too_large_ones_are_rejected(tmp_path: Path) -> None:
    labels = (GROUND_TRUTH + (X > 60)).astype(np.uint8)
    path = save(tmp_path / "m.png", labels)
    assert np.array_equal(read_mask(path, classes=3), labels)
    with pytest.raises(ReadError, match="values 0, 1, 2 where 0 and 1, or 0 and 255"):
        read_mask(path, classes=2)
    with pytest.raises(ReadError, match="the values 0, 255 where 0 to 2"):
        read_mask(save(tmp_path / "b.png", GROUND_TRUTH * 255), classes=3)


def test_inverted_palette_is_read_by_its_colors(tmp_path: Path) -> None:
    inverted = np.where(GROUND_TRUTH, 0, 255)
    path = save_palette(tmp_path / "m.png", inverted, {0: (255,) * 3, 255: (0,) * 3})
    assert np.array_equal(read_mask(path, classes=2), GROUND_TRUTH)


def test_colored_palette_is_read_by_its_indices(tmp_path: Path) -> None:
    labels = (GROUND_TRUTH + (X > 60)).astype(np.uint8)
    colors = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0)}
    path = save_palette(tmp_path / "m.png", labels, colors)
    assert np.array_equal(read_mask(path, classes=3), labels)
    turned = save_palette(tmp_path / "t.png", 1 - GROUND_TRUTH, {0: (255, 0, 0), 1: (0, 0, 0)})
    with pytest.raises(ReadError, match="palette does not list 2 classes"):
        read_mask(turned, classes=2)


def test_soft_edges_are_thresholded_with_a_warning(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.jpg", np.kron(GROUND_TRUTH * 255, np.ones((7, 7), np.uint8)), quality=90
    )
    assert len(np.unique(np.asarray(Image.open(path)))) > 2
    mask = read_mask_file(path, classes=2)
    assert np.array_equal(mask.array, np.kron(GROUND_TRUTH, np.ones((7, 7), np.uint8)))
    assert "soft edges are thresholded at 128" in mask.warnings[0]


def test_gray_values_away_from_edges_are_rejected(tmp_path: Path) -> None:
    gray_patch = GROUND_TRUTH * 255
    gray_patch[:3, :3] = 128
    for name, array in {
        "patch": gray_patch,
        "ramp": (X * 3).astype(np.uint8),
        "two grays": GROUND_TRUTH * 100,
        "dark class": GROUND_TRUTH * 3,
    }.items():
        with pytest.raises(ReadError, match="not a mask of 2 classes: it holds the values"):
            read_mask(save(tmp_path / f"{name}.png", array), classes=2)


def test_error_counts_the_values_it_does_not_list(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", (X * 3).astype(np.uint8))
    with pytest.raises(ReadError, match="values 0, 3, 6, 9, 12, 15, 18, 21 and 72 more up to 237"):
        read_mask(path, classes=2)


def test_color_images_and_masks_in_the_alpha_channel_are_rejected(tmp_path: Path) -> None:
    red = np.dstack([GROUND_TRUTH * 255, GROUND_TRUTH * 0, GROUND_TRUTH * 0])
    with pytest.raises(ReadError, match=r"color image and not a mask: 2 colors, \(0, 0, 0\)"):
        read_mask(save(tmp_path / "r.png", red), classes=2)
    synthetic = np.dstack([np.full_like(GROUND_TRUTH, 255)] * 3 + [GROUND_TRUTH * 255])
    with pytest.raises(ReadError, match="in the alpha channel"):
        read_mask(save(tmp_path / "a.png", synthetic), classes=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_volume_mask_of_any_type_is_read_as_class_indices(dtype: type, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (5, 6, 7)).astype(dtype)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "m.nii.gz")
    mask = read_mask_file(tmp_path / "m.nii.gz", classes=4)
    assert mask.array.dtype == np.uint8
    assert np.array_equal(mask.array, labels)
    assert mask.spacing == (1.0, 1.0, 1.0)
    with pytest.raises(ReadError, match="values 0, 1, 2, 3 where 0 to 2 are"):
        read_mask(tmp_path / "m.nii.gz", classes=3)


def test_volumes_of_probabilities_and_of_negative_labels_are_rejected(tmp_path: Path) -> None:
    for name, value in {"p": 0.5, "n": -1.0}.items():
        voxels = np.zeros((4, 4, 4), dtype=np.float32)
        voxels[1, 1, 1] = value
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii")
        with pytest.raises(ReadError, match="not a mask of 2 classes"):
            read_mask(tmp_path / f"{name}.nii", classes=2)


def test_signed_volume_of_0_and_255_is_read_as_a_mask(tmp_path: Path) -> None:
    voxels = np.zeros((4, 4, 4), dtype=np.int16)
    voxels[1] = 255
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "m.nii")
    assert np.array_equal(read_mask(tmp_path / "m.nii", classes=2), voxels // 255)


def test_truncated_mask_is_rejected(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(GROUND_TRUTH * 255).save(stream, "PNG")
    path = tmp_path / "m.png"
    path.write_bytes(stream.getvalue()[:-20])
    with pytest.raises(ReadError, match="cut off"):
        read_mask(path, classes=2)
