"""Test that broken NIfTI volumes give a one-line error and never a traceback of a library."""

import contextlib
import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.readers.nifti_stream import open_volume
from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.errors import ReadError

SHAPE = (11, 9, 5)
AFFINE = np.diag([1.5, 1.5, 3.0, 1.0])


def volume(array: np.ndarray | None = None, *, kind: type = nib.Nifti1Image) -> bytes:
    if array is None:
        array = np.random.default_rng(0).integers(-500, 500, SHAPE).astype(np.int16)
    return kind(array, AFFINE).to_bytes()


def patch(layout: str, offset: int, *values: object) -> bytes:
    data = bytearray(volume())
    struct.pack_into("<" + layout, data, offset, *values)
    return bytes(data)


def with_two_values(value: float) -> bytes:
    array = np.zeros(SHAPE, dtype=np.float32)
    array[1, 2, 3] = array[0, 0, 0] = value
    return volume(array)


def four_dimensional() -> bytes:
    return volume(np.zeros((*SHAPE, 2), dtype=np.int16))


def colored() -> bytes:
    return volume(np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))


def flat_affine() -> bytes:
    # The second and third rows of the sform are equal, so the three axes are in one plane.
    return patch("8f", 280 + 16, *(0.0, 1.5, 3.0, 0.0) * 2)


NAN = float("nan")
# Field offsets of the NIfTI-1 header: dim 40, datatype 70, pixdim 76, vox_offset 108, scl_slope
# 112, magic 344, srow_x 280.
BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty nii": ("a.nii", lambda: b"", "empty"),
    "empty gz": ("a.nii.gz", lambda: b"", "empty"),
    "gzip of nothing": ("a.nii.gz", lambda: gzip.compress(b""), "NIfTI"),
    "text": ("a.nii", lambda: b"this is no volume " * 40, "no NIfTI"),
    "text in gzip": ("a.nii.gz", lambda: gzip.compress(b"no volume " * 99), "no NIfTI"),
    "png named nii": ("a.nii", lambda: b"\x89PNG\r\n\x1a\n" + bytes(900), "no NIfTI"),
    "gzip named nii": ("a.nii", lambda: gzip.compress(volume()), "rename"),
    "plain named gz": ("a.nii.gz", volume, "holds no gzip"),
    "one byte missing": ("a.nii", lambda: volume()[:-1], "cut off"),
    "voxels missing, gzip intact": ("a.nii.gz", lambda: gzip.compress(volume()[:-200]), "cut off"),
    "gzip checksum missing": ("a.nii.gz", lambda: gzip.compress(volume())[:-8], "cut off"),
    "gzip checksum wrong": (
        "a.nii.gz",
        lambda: gzip.compress(volume())[:-8] + bytes(4) + gzip.compress(volume())[-4:],
        "gzip",
    ),
    "bytes behind the voxels": ("a.nii", lambda: volume() + b"more", "longer"),
    "bytes behind, in gzip": ("a.nii.gz", lambda: gzip.compress(volume() + b"more"), "longer"),
    "bytes behind the gzip": ("a.nii.gz", lambda: gzip.compress(volume()) + b"more", "gzip"),
    "30000 x 30000 x 30000": ("a.nii", lambda: patch("4h", 40, 3, *[30000] * 3), "max_pixels"),
    "larger than the file": ("a.nii", lambda: patch("4h", 40, 3, 500, 500, 500), "cut off"),
    "axis of length 0": ("a.nii", lambda: patch("4h", 40, 3, 11, 0, 5), "damaged"),
    "axis of negative length": ("a.nii", lambda: patch("4h", 40, 3, 11, -9, 5), "damaged"),
    "nine axes": ("a.nii", lambda: patch("h", 40, 9), "damaged"),
    "four axes": ("a.nii", four_dimensional, "4 axes"),
    "two axes": ("a.nii", lambda: volume(np.zeros((9, 9), dtype=np.int16)), "axes"),
    "complex": ("a.nii", lambda: volume(np.zeros(SHAPE, dtype=np.complex64)), "complex64"),
    "color": ("a.nii", colored, "integers and real numbers"),
    "unknown type": ("a.nii", lambda: patch("h", 70, 999), "NIfTI"),
    "NaN voxels": ("a.nii", lambda: with_two_values(NAN), "2 of 495 values"),
    "infinite voxels": ("a.nii", lambda: with_two_values(float("-inf")), "2 of 495 values"),
    "NaN affine": ("a.nii", lambda: patch("f", 280, NAN), "affine"),
    "infinite affine": ("a.nii", lambda: patch("f", 284, float("inf")), "affine"),
    "NaN spacing": ("a.nii", lambda: patch("f", 80, NAN), "spacing"),
    "zero spacing": ("a.nii", lambda: patch("f", 84, 0.0), "spacing"),
    "giant spacing": ("a.nii", lambda: patch("f", 88, 5000.0), "spacing"),
    "axes in one plane": ("a.nii", flat_affine, "determinant"),
    "infinite slope": ("a.nii", lambda: patch("2f", 112, float("inf"), 0.0), "scaling"),
    "voxels inside the header": ("a.nii", lambda: patch("f", 108, 100.0), "begin at byte 100"),
    "voxels at infinity": ("a.nii", lambda: patch("f", 108, float("inf")), "offset"),
    "voxels far behind": ("a.nii", lambda: patch("f", 108, 1e9), "begin at byte"),
    "header of a pair": ("a.nii", lambda: patch("4s", 344, b"ni1\0"), "pairs"),
}


def refuse(path: Path) -> str:
    """Return the error message, which is the same for reading a file whole or plane by plane."""
    with pytest.raises(ReadError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    with pytest.raises(ReadError) as caught:
        open_volume(path, max_pixels=DEFAULT_MAX_PIXELS)
    assert str(caught.value) == message
    return message


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_volume_gives_a_one_line_error_with_the_reason(kind: str, tmp_path: Path) -> None:
    name, build, reason = BROKEN[kind]
    path = tmp_path / name
    path.write_bytes(build())
    assert reason in refuse(path)
    with pytest.raises(ReadError):
        read_mask(path, classes=2)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_volume_truncated_at_any_percent_is_rejected(name: str, kind: type, tmp_path: Path) -> None:
    data = volume(kind=kind)
    data = gzip.compress(data) if name.endswith(".gz") else data
    path = tmp_path / name
    path.write_bytes(data)
    assert read_image(path).array.shape == SHAPE
    cuts = {len(data) * percent // 100 for percent in range(100)}
    for cut in sorted(cuts | set(range(len(data) - 24, len(data)))):
        path.write_bytes(data[:cut])
        refuse(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_flipped_bytes_raise_read_error_or_nothing(name: str, tmp_path: Path) -> None:
    data = volume(np.zeros((3, 2, 2), dtype=np.int16))
    path = tmp_path / name
    for position in range(0, 356, 2 if name.endswith(".gz") else 1):
        for bit in (0x01, 0x80):
            broken = bytearray(data)
            broken[position] ^= bit
            packed = gzip.compress(broken) if name.endswith(".gz") else bytes(broken)
            path.write_bytes(packed)
            # Some flips only change a value. Any other exception fails the test.
            with contextlib.suppress(ReadError):
                read_image(path, max_pixels=1_000_000)


def test_gzip_bomb_is_rejected_without_unpacking_it(tmp_path: Path) -> None:
    path = tmp_path / "bomb.nii.gz"
    path.write_bytes(gzip.compress(volume() + bytes(100_000_000), compresslevel=9))
    tracemalloc.start()
    assert "longer than its header says" in refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def test_size_that_cannot_fit_in_the_gzip_file_is_rejected_early(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(patch("4h", 40, 3, 500, 500, 500)))
    tracemalloc.start()
    assert "cut off: 250000352 bytes belong to it" in refuse(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000
