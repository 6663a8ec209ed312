"""Test the values of images and volumes in every supported format."""

import gzip
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import monai.transforms as mt
import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from segnetr.data.readers.file_list import list_images
from segnetr.data.readers.monai_reader import StrictReader
from segnetr.data.readers.read_files import is_supported, open_image, read_image, read_mask
from segnetr.errors import ReadError, UsageError

SIZE = (24, 33)
RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 256, SIZE, dtype=np.uint8)
COLOR = RNG.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
VOXELS = RNG.integers(-900, 900, (7, 6, 5)).astype(np.int16)
OBLIQUE = np.array([[1.2, 0.3, 0, -7], [-0.3, 1.2, 0.1, 4], [0, 0, 2.5, 9], [0, 0, 0, 1.0]])


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def save_volume(path: Path, array: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.bmp", "a.BMP", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("array", [GRAY, COLOR], ids=["gray", "color"])
def test_lossless_image_is_read_as_saved(name: str, array: np.ndarray, tmp_path: Path) -> None:
    image = read_image(save(tmp_path / name, array))
    assert image.kind == "image"
    assert image.warnings == ()
    assert np.array_equal(image.array, array.reshape(*SIZE, -1))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_interlaced_png_is_read(tmp_path: Path) -> None:
    # Built by hand because Pillow cannot write interlaced files: Adam7, 5 x 3, gray.
    array = np.arange(15, dtype=np.uint8).reshape(3, 5) * 17
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
              (0, 1, 1, 2))  # fmt: skip
    rows = [row for x, y, i, j in passes for row in array[y::j, x::i] if row.size]
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 8, 0, 0, 0, 1))
    data += png_chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)))
    path = tmp_path / "a.png"
    path.write_bytes(data + png_chunk(b"IEND", b""))
    assert np.array_equal(read_image(path).array[..., 0], array)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path: Path) -> None:
    path = save(tmp_path / "a.JPG", COLOR, quality=95)
    assert np.array_equal(read_image(path).array, np.asarray(Image.open(path)))


def test_gray_is_repeated_and_color_is_weighted_to_the_number_of_channels(tmp_path: Path) -> None:
    gray, color = save(tmp_path / "g.png", GRAY), save(tmp_path / "c.png", COLOR)
    assert np.array_equal(read_image(gray, channels=3).array, np.repeat(GRAY[..., None], 3, 2))
    luminance = read_image(color, channels=1).array
    assert luminance.shape == (*SIZE, 1)
    assert luminance.dtype == np.uint8
    expected = np.asarray(Image.fromarray(COLOR).convert("L")).astype(int)
    assert np.abs(luminance[..., 0].astype(int) - expected).max() <= 1
    with pytest.raises(ReadError, match="3 channels where 4"):
        read_image(color, channels=4)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_gray_tiff_of_more_than_8_bits_keeps_its_values(dtype: type, tmp_path: Path) -> None:
    array = (RNG.random(SIZE) * 60000).astype(dtype)
    image = read_image(save(tmp_path / "a.tif", array))
    assert image.array.dtype == dtype
    assert np.array_equal(image.array[..., 0], array)


def test_gray_png_of_16_bits_keeps_its_values(tmp_path: Path) -> None:
    array = (RNG.random(SIZE) * 65535).astype(np.uint16)
    image = read_image(save(tmp_path / "a.png", array))
    assert image.array.dtype == np.uint16
    assert np.array_equal(image.array[..., 0], array)


def test_wrong_image_suffix_gives_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    save(tmp_path / "a.png", COLOR).rename(path)
    image = read_image(path)
    assert np.array_equal(image.array, COLOR)
    assert image.warnings == ("it is named .jpg but holds PNG",)


def test_cmyk_palette_and_one_bit_images_are_converted_to_color_or_gray(tmp_path: Path) -> None:
    Image.fromarray(COLOR).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95)
    image = read_image(tmp_path / "cmyk.jpg")
    assert image.array.shape == (*SIZE, 3)
    assert image.warnings == ("colors converted from CMYK to RGB",)
    Image.fromarray(COLOR).quantize(64).save(tmp_path / "palette.png")
    expected = np.asarray(Image.open(tmp_path / "palette.png").convert("RGB"))
    assert np.array_equal(read_image(tmp_path / "palette.png").array, expected)
    bits = GRAY > 128
    assert np.array_equal(read_image(save(tmp_path / "b.bmp", bits)).array[..., 0], bits * 255)


def test_transparency_is_dropped_with_a_warning(tmp_path: Path) -> None:
    half = np.dstack([COLOR, GRAY])
    image = read_image(save(tmp_path / "a.png", half))
    assert np.array_equal(image.array, COLOR)
    assert image.warnings == ("transparency is dropped",)
    opaque = np.dstack([COLOR, np.full(SIZE, 255, np.uint8)])
    assert read_image(save(tmp_path / "b.png", opaque)).warnings == ()


def test_camera_orientation_gives_a_warning_and_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = read_image(save(tmp_path / "a.jpg", COLOR, exif=exif))
    assert image.array.shape == (*SIZE, 3)
    assert "EXIF orientation 6 is not applied" in image.warnings[0]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
def test_volume_keeps_values_affine_and_header_exactly(name: str, tmp_path: Path) -> None:
    source = save_volume(tmp_path / "source.nii", VOXELS).read_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(source) if name.lower().endswith("gz") else source)
    volume = read_image(path, channels=3)
    assert volume.kind == "volume"
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, VOXELS)
    assert volume.header is not None
    assert volume.header.binaryblock == source[:348]
    assert np.array_equal(volume.affine, nib.Nifti1Image.from_bytes(source).affine)
    assert volume.spacing == pytest.approx(np.linalg.norm(OBLIQUE[:3, :3], axis=0))


def test_big_endian_nifti_2_and_scaled_volumes_are_read(tmp_path: Path) -> None:
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti2Image(VOXELS, OBLIQUE, header), tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    assert np.array_equal(volume.array, VOXELS)
    assert volume.array.dtype.isnative
    scaled = nib.Nifti1Image(VOXELS, OBLIQUE)
    scaled.header.set_slope_inter(0.5, 10)
    nib.save(scaled, tmp_path / "s.nii")
    expected = nib.load(tmp_path / "s.nii").get_fdata()
    assert np.allclose(read_image(tmp_path / "s.nii").array, expected, atol=1e-3)


def test_axes_of_length_one_are_dropped_with_a_warning(tmp_path: Path) -> None:
    volume = read_image(save_volume(tmp_path / "a.nii", VOXELS[..., np.newaxis]))
    assert volume.array.shape == VOXELS.shape
    assert "4 axes" in volume.warnings[0]


def test_gzip_file_of_several_members_is_read_completely(tmp_path: Path) -> None:
    data = save_volume(tmp_path / "a.nii", VOXELS).read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(data[:400]) + gzip.compress(data[400:]) + bytes(512))
    assert np.array_equal(read_image(path).array, VOXELS)


def test_units_of_the_header_are_converted_to_millimeters(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, np.diag([500.0, 500.0, 900.0, 1.0]))
    image.header.set_xyzt_units("micron")
    nib.save(image, tmp_path / "a.nii")
    assert read_image(tmp_path / "a.nii").spacing == pytest.approx((0.5, 0.5, 0.9))


def test_monai_transforms_read_with_the_strict_reader(tmp_path: Path) -> None:
    image, mask = (
        save(tmp_path / "i.jpg", COLOR),
        save(tmp_path / "m.png", np.uint8(GRAY > 99) * 255),
    )
    chain = mt.Compose(
        [
            mt.LoadImaged("image", reader=StrictReader(channels=3), ensure_channel_first=True),
            mt.LoadImaged("mask", reader=StrictReader(classes=2), ensure_channel_first=True),
            mt.ScaleIntensityd("image"),
            mt.Resized(("image", "mask"), (32, 32), mode=("bilinear", "nearest")),
        ]
    )
    item = chain({"image": str(image), "mask": mask})
    assert item["image"].shape == (3, 32, 32)
    assert item["mask"].shape == (1, 32, 32)
    assert set(torch.unique(item["mask"]).tolist()) == {0.0, 1.0}


def test_metadata_of_a_volume_equal_those_of_the_monai_reader(tmp_path: Path) -> None:
    path = save_volume(tmp_path / "a.nii.gz", VOXELS)
    ours = mt.LoadImage(reader=StrictReader(), ensure_channel_first=True)(path)
    theirs = mt.LoadImage(reader="NibabelReader", ensure_channel_first=True)(path)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    assert torch.equal(ours.affine, theirs.affine)
    for key in ("spatial_shape", "original_affine", "space", "pixdim", "original_channel_dim"):
        assert str(ours.meta[key]) == str(theirs.meta[key]), key
    turned = mt.Orientation("LPS", labels=None)(ours)
    assert turned.shape == (1, *VOXELS.shape)


def test_monai_does_not_fall_back_to_a_lenient_reader(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    whole = gzip.compress(save_volume(tmp_path / "a.nii", VOXELS).read_bytes())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ReadError, match="cut off"):
        mt.LoadImage(reader=StrictReader())(path)


def test_strict_reader_accepts_a_single_file_with_a_supported_suffix(tmp_path: Path) -> None:
    reader = StrictReader()
    assert reader.verify_suffix("x/a.NII.gz")
    assert not reader.verify_suffix(["a.png", "a.dcm"])
    with pytest.raises(ReadError, match="2 files where one is read"):
        reader.get_data(reader.read(["a.png", "b.png"]))


def test_images_are_listed_by_folder_without_companion_files(tmp_path: Path) -> None:
    for name in ("b.PNG", "sub/a.jpg", "sub/deep/v.nii.gz", "ISIC_1_superpixels.png", ".x.png",
                 "._b.png", ".hidden/c.png", "notes.txt", "sub/x.dcm"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    listed = list_images([tmp_path, tmp_path / "b.PNG"])
    names = ["b.PNG", "sub/a.jpg", "sub/deep/v.nii.gz"]
    assert listed == [(tmp_path / name, Path(name)) for name in names]
    assert list_images([tmp_path / "sub" / "a.jpg"]) == [(tmp_path / "sub/a.jpg", Path("a.jpg"))]
    with pytest.raises(UsageError, match=r"not read \(\.png \.jpg"):
        list_images([tmp_path / "notes.txt"])
    with pytest.raises(UsageError, match="no such file or folder"):
        list_images([tmp_path / "absent"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images"):
        list_images([tmp_path / "empty"])


def test_supported_files_are_recognized_by_suffix_in_any_case() -> None:
    names = ["a.png", "a.Jpeg", "a.b.BMP", "a.tif", "a.nii", "a.NII.GZ"]
    assert all(is_supported(Path(name)) for name in names)
    assert not any(is_supported(Path(name)) for name in ["a.gif", "a.gz", "png", "a.png.txt"])


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "classes"),
    [("isic2017", 2), ("isic2018_layout", 2), ("ph2_layout_fixture", 2), ("ham10000", 2),
     ("ultrasound_tnscui_layout", 2), ("msd_hippocampus", 3), ("acdc", 4), ("ct_totalseg", 42)],
)  # fmt: skip
def test_real_files_are_read_without_errors(folder: str, classes: int, real_data: Path) -> None:
    root = real_data / folder
    if not root.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    signs = ("segment", "mask", "lesion.bmp", "_gt.", "labels", "groundtruth")
    masks = 0
    for path, relative in list_images([root])[::3]:
        image = read_image(path)
        if any(sign in str(relative).lower() for sign in signs):
            masks += 1
            mask = read_mask(path, classes=classes)
            assert mask.shape == (image.array.shape[:2] if mask.ndim == 2 else image.array.shape)
            assert mask.max() < classes
    assert masks or folder == "ct_totalseg"


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif"])
def test_image_file_is_opened_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that size limit, integrity check and decoding share one open file."""
    path = tmp_path / name
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(path)
    opened: list[Path] = []
    checked: list[int] = []
    original = Path.open

    def count(self: Path, *args: Any, **kwargs: Any) -> Any:
        opened.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", count)
    image = open_image(path, check_pixels=lambda _, pixels: checked.append(pixels))
    assert image.grid == (6, 7)
    assert checked == [42]
    # A TIFF file is opened again to count its pages.
    assert opened == [path] * (2 if name == "a.tif" else 1)


def test_pixel_limit_applies_before_an_image_is_decoded(tmp_path: Path) -> None:
    """Raise in the size callback and check that no pixels are allocated."""
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(path)

    def reject(path: Path, pixels: int) -> None:
        raise ReadError(path, f"{pixels} pixels")

    with pytest.raises(ReadError, match="42 pixels"):
        open_image(path, check_pixels=reject)


def test_png_and_nifti_are_read_without_heavy_imports(tmp_path: Path) -> None:
    """SimpleITK, MONAI and albumentations slow down a cold start."""
    Image.fromarray(np.zeros((6, 7, 3), np.uint8)).save(tmp_path / "a.png")
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from segnetr.data.readers.read_files import open_image, read_image\n"
        "for path in sys.argv[1:]:\n    open_image(Path(path)); read_image(Path(path))\n"
        "print([name for name in ('SimpleITK', 'monai', 'albumentations') if name in sys.modules])"
    )
    paths = [str(tmp_path / name) for name in ("a.png", "a.nii.gz")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
