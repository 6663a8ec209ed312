"""Test that NRRD, MetaImage and NIfTI masks have exactly the geometry of their image."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray
from PIL import Image

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.engine.inference.predictor import Prediction
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.masks.format import MASK_FORMATS
from segnetr.outputs.masks.writer import plan_output_paths, write_prediction

SHAPE = (5, 4, 3)
SPACING = (0.5, 1.25, 4.0)
LABELS = np.random.default_rng(3).integers(0, 2, SHAPE).astype(np.uint8)
CODES = [
    "".join(code)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for code in itertools.product(*order)
]
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turn(about_z: float, about_x: float) -> NDArray[np.float64]:
    z, x = np.deg2rad((about_z, about_x))
    first = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    second = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    return np.array(first) @ np.array(second)


def make_affine(
    code: str,
    *,
    rotation: NDArray[np.float64],
    spacing: tuple[float, ...] = SPACING,
    origin: tuple[float, ...] = (-31.5, 12.1, 88.7),
) -> NDArray[np.float64]:
    affine = np.diag([*spacing, 1.0])
    affine = affine @ inv_ornt_aff(axcodes2ornt(tuple(code)), SHAPE)
    affine[:3, :3] = rotation @ affine[:3, :3]
    affine[:3, 3] = origin
    return affine


def itk_image(affine: NDArray[np.float64]) -> SimpleITK.Image:
    """Build an image of random values with the geometry of an affine to RAS."""
    values = np.random.default_rng(1).integers(-900, 900, SHAPE).astype(np.int16)
    image = SimpleITK.GetImageFromArray(values.transpose(2, 1, 0))
    lps = TO_LPS @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(sides.tolist())
    image.SetDirection((lps[:3, :3] / sides).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def itk_affine(image: SimpleITK.Image) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return TO_LPS @ affine


def write_mask(image: ImageFile, out: Path, name: str) -> Path:
    prediction = Prediction(labels=LABELS, num_classes=2)
    return write_prediction(prediction, image, out=out, relative=Path(name))[0]


def geometry_of(path: Path) -> tuple[tuple[float, ...], ...]:
    image = SimpleITK.ReadImage(str(path))
    return image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def assert_mask_has_the_geometry_of_its_image(affine: NDArray[np.float64], folder: Path) -> None:
    """Write an image and its mask in every format and compare their geometry in both libraries."""
    made = itk_image(affine)
    # NIfTI headers store float32, so positions differ in the seventh digit.
    coarse = {"rtol": 1e-5, "atol": 1e-5 * np.abs(affine).max()}
    for name in ("a.nrrd", "a.mha", "a.nhdr", "a.mhd", "a.nii.gz"):
        source = folder / name
        SimpleITK.WriteImage(made, str(source))
        image = read_image(source)
        wanted = name.replace("nhdr", "nrrd").replace("mhd", "mha")
        mask = write_mask(image, folder / f"of_{name}", wanted)
        assert geometry_of(mask) == geometry_of(source), name
        again = read_image(mask)
        assert again.affine.tobytes() == image.affine.tobytes(), name
        assert again.spacing == image.spacing
        seen = SimpleITK.ReadImage(str(mask))
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(seen).T, LABELS)
        np.testing.assert_allclose(itk_affine(seen), image.affine, **coarse)
        converted = write_mask(image, folder / f"nii_{name}", "a.nii.gz")
        by_nibabel = nib.load(converted)
        np.testing.assert_array_equal(np.asanyarray(by_nibabel.dataobj), LABELS)
        np.testing.assert_allclose(by_nibabel.affine, affine, **coarse)
        by_itk = SimpleITK.ReadImage(str(converted))
        np.testing.assert_allclose(itk_affine(by_itk), by_nibabel.affine, **coarse)


@pytest.mark.slow
@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("code", CODES)
def test_mask_keeps_the_geometry_of_every_orientation_in_every_format(
    code: str, oblique: bool, tmp_path: Path
) -> None:
    assert len(CODES) == 48
    rotation = turn(17, 9) if oblique else np.eye(3)
    assert_mask_has_the_geometry_of_its_image(make_affine(code, rotation=rotation), tmp_path)


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    code=st.sampled_from(CODES),
    angles=st.tuples(st.floats(-180, 180), st.floats(-180, 180)),
    spacing=st.tuples(*[st.floats(0.01, 30)] * 3),
    origin=st.tuples(*[st.floats(-2000, 2000)] * 3),
)
def test_mask_keeps_any_rotation_spacing_and_origin(
    code: str,
    angles: tuple[float, float],
    spacing: tuple[float, ...],
    origin: tuple[float, ...],
    tmp_path: Path,
) -> None:
    affine = make_affine(code, rotation=turn(*angles), spacing=spacing, origin=origin)
    assert_mask_has_the_geometry_of_its_image(affine, tmp_path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_geometry_lines_of_the_header_are_copied_verbatim(name: str, tmp_path: Path) -> None:
    odd = "0.33333333333333331000"  # more digits than our writer uses
    nrrd = (
        "NRRD0004\ntype: short\ndimension: 3\nspace: RAS\nsizes: 5 4 3\n"
        f"space directions: ({odd},0,0) (0,1.50,0) (0,0,3)\nkinds: domain domain domain\n"
        "endian: little\nencoding: raw\nspace origin: (1e0,2.,3)\nmodality:=MR\n\n"
    )
    meta = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
        f"Offset = 1e0 2. 3\nAnatomicalOrientation = LPS\nElementSpacing = {odd} 1.50 3\n"
        "DimSize = 5 4 3\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    text = nrrd if name == "a.nrrd" else meta
    (tmp_path / name).write_bytes(text.encode() + bytes(2 * LABELS.size))
    mask = write_mask(read_image(tmp_path / name), tmp_path / "out", name)
    written = mask.read_bytes()
    keys = ("space", "kinds", "modality", "Transform", "Offset", "Anatomical", "ElementSp", "DimS")
    lines = [line for line in text.split("\n") if line.startswith(keys)]
    assert len(lines) >= 5
    assert all(f"\n{line}\n".encode() in written for line in lines)
    np.testing.assert_array_equal(read_mask(mask, classes=2), LABELS)


def test_mask_of_a_multichannel_image_has_its_geometry_and_no_channels(tmp_path: Path) -> None:
    source = tmp_path / "a.nrrd"
    values = np.random.default_rng(1).random((3, 4, 5, 2)).astype(np.float32)
    image = SimpleITK.GetImageFromArray(values, isVector=True)
    image.SetSpacing(SPACING)
    image.SetDirection(turn(17, 9).ravel().tolist())
    SimpleITK.WriteImage(image, str(source))
    mask = write_mask(read_image(source, volume_channels=2), tmp_path / "out", "a.nrrd")
    assert geometry_of(mask) == geometry_of(source)
    np.testing.assert_array_equal(read_mask(mask, classes=2), LABELS)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_affine_survives_conversion_from_nifti_to_another_format_exactly(
    name: str, tmp_path: Path
) -> None:
    affine = make_affine("PIR", rotation=turn(17, 9))
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, tmp_path / "a.nii.gz")
    read = read_image(tmp_path / "a.nii.gz")
    mask = write_mask(read, tmp_path / "out", name)
    # MetaImage stores direction and spacing, and their product may differ in the last bit.
    np.testing.assert_allclose(
        read_image(mask).affine, read.affine, rtol=0 if name == "a.nrrd" else 1e-14, atol=1e-15
    )
    np.testing.assert_allclose(itk_affine(SimpleITK.ReadImage(str(mask))), read.affine, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_multipage_tiff_and_its_mask_are_volumes(dtype: type, tmp_path: Path) -> None:
    values = (np.random.default_rng(1).random((3, 4, 5)) * 200).astype(dtype)
    pages = [Image.fromarray(page) for page in values]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    image = read_image(tmp_path / "a.tif", channels=3)
    assert image.kind == "volume"
    assert image.affine is None
    assert image.spacing is None
    np.testing.assert_array_equal(image.array, values.transpose(2, 1, 0))
    mask = write_mask(image, tmp_path / "out", "a.tif")
    np.testing.assert_array_equal(read_mask(mask, classes=2), LABELS)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(mask))).T,
                                  LABELS)  # fmt: skip
    with pytest.raises(ReadError, match=r"volume of 3 slices, and \.png holds an image"):
        write_mask(image, tmp_path / "out", "a.png")


def test_tiff_pages_of_different_size_or_type_are_rejected(tmp_path: Path) -> None:
    gray = [Image.fromarray(np.zeros((4, 5 + (page == 2)), np.uint8)) for page in range(3)]
    gray[0].save(tmp_path / "a.tif", save_all=True, append_images=gray[1:])
    with pytest.raises(ReadError, match="3 pages have 2 sizes"):
        read_image(tmp_path / "a.tif")
    mixed = [gray[0], Image.fromarray(np.zeros((4, 5), np.uint16))]
    mixed[0].save(tmp_path / "b.tif", save_all=True, append_images=mixed[1:])
    with pytest.raises(ReadError, match="page 2 is not of the size and type"):
        read_image(tmp_path / "b.tif")
    gray[0].save(tmp_path / "c.tif", save_all=True, append_images=gray[1:2])
    with pytest.raises(ReadError, match=r"data\.max_pixels=40"):
        read_image(tmp_path / "c.tif", max_pixels=39)


def plan_names(*names: str, format_name: str) -> list[str]:
    inputs = [(Path("in", name), Path(name)) for name in names]
    plan = plan_output_paths(inputs, out=Path("out"), format_name=format_name)
    return [item.relative.as_posix() for item in plan]


def test_mask_format_can_be_selected() -> None:
    volumes = ("a.nii.gz", "b.nrrd", "c.mha", "d.dcm", "e.nhdr", "f.mhd")
    same = ["a.nii.gz", "b.nrrd", "c.mha", "d.dcm", "e.nrrd", "f.mha"]
    assert plan_names(*volumes, format_name="same") == same
    for name in ("nii", "nii.gz", "nrrd", "mha"):
        assert plan_names(*volumes, format_name=name) == [f"{x}.{name}" for x in "abcdef"]
    images = ("a.jpg", "b.PNG", "c.tif")
    assert plan_names(*images, format_name="palette") == ["a.png", "b.png", "c.png"]
    assert plan_names(*images, format_name="tif") == ["a.tif", "b.tif", "c.tif"]
    assert plan_names("a.jpg", "a.png", format_name="bmp") == ["a_jpg.bmp", "a_png.bmp"]


@pytest.mark.parametrize(
    ("name", "format_name"),
    [("a.png", "nii.gz"), ("a.nii.gz", "png"), ("a.nrrd", "palette"), ("a.nii", "dcm"),
     ("a.dcm", "png"), ("a.tif", "nrrd"), ("a.png", "jpg"), ("a.png", "")],
)  # fmt: skip
def test_format_that_cannot_store_the_mask_is_rejected_early(name: str, format_name: str) -> None:
    with pytest.raises(UsageError, match="--format"):
        plan_names("fine.png", name, format_name=format_name)
    assert "jpg" not in MASK_FORMATS


@pytest.mark.parametrize("num_classes", [2, 4, 9])
def test_palette_mask_has_colors_and_stores_class_indices(num_classes: int, tmp_path: Path) -> None:
    labels = np.random.default_rng(2).integers(0, num_classes, (9, 11)).astype(np.uint8)
    image = ImageFile(path=Path("x.jpg"), array=np.zeros((9, 11, 3), np.uint8), kind="image")
    (path,) = write_prediction(
        Prediction(labels=labels, num_classes=num_classes),
        image,
        out=tmp_path,
        relative=Path("x.png"),
        palette=True,
    )
    with Image.open(path) as stored:
        assert stored.mode == "P"
        np.testing.assert_array_equal(np.asarray(stored), labels)
        assert len(np.unique(np.asarray(stored.convert("RGB")).reshape(-1, 3), axis=0)) >= 2
    np.testing.assert_array_equal(read_mask(path, classes=num_classes), labels)
