"""Test formats, geometry and atomic writing of mask files."""

import gzip
import itertools
import os
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.orientations import axcodes2ornt, inv_ornt_aff
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.errors import WriteError
from segnetr.outputs.masks.writer import plan_output_paths, write_prediction

SHAPE = (9, 7, 5)
SPACING = (0.5, 1.25, 4.0)
# Fields that a mask must not copy from its image: data type, voxel offset, scaling.
OWN_FIELDS = {"datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter"}

CODES = [
    "".join(code)
    for order in itertools.permutations(("LR", "PA", "IS"))
    for code in itertools.product(*order)
]


class Threshold(nn.Module):
    """A network that predicts foreground where the image is above one half."""

    def forward(self, image: Tensor) -> Tensor:
        logit = 20 * (image[:, :1] - 0.5)
        return torch.cat([-logit, logit], dim=1)


def turn(degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    about_z = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]
    return np.array(about_z) @ np.array(about_x)


def make_affine(code: str, *, oblique: bool) -> NDArray[np.float64]:
    axes = inv_ornt_aff(axcodes2ornt(tuple(code)), SHAPE)
    affine = np.diag([*SPACING, 1.0])
    if oblique:
        affine[:3, :3] = turn(17) @ affine[:3, :3]
    affine[:3, 3] = (-31.5, 12.25, 88.0)
    return affine @ axes


def write_volume(path: Path, affine: NDArray[np.float64], *, dtype: Any = np.uint8) -> Path:
    values = (np.random.default_rng(1).random(SHAPE) > 0.5).astype(dtype) * np.iinfo(dtype).max
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code=2)
    image.set_qform(affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"drawn for a test"
    image.header["pixdim"][4] = 2.5
    image.header["cal_max"] = 700
    image.header["aux_file"] = b"none"
    nib.save(image, path)
    return path


def segment(image: ImageFile, *, keep: bool = False) -> Prediction:
    predictor = Predictor(
        Threshold(),
        config=PredictConfig(mode="resize"),
        intensity=IntensityConfig(mean=(0.0,), std=(1.0,)),
        image_size=image.array.shape[:2],
        num_classes=2,
        channels=1,
    )
    return predictor.predict(image, keep_probabilities=keep)


def stored_header(path: Path) -> nib.Nifti1Header:
    data = path.read_bytes()
    data = gzip.decompress(data) if path.suffix == ".gz" else data
    return nib.Nifti1Header(data[:348], check=False)


def assert_same_geometry(mask: Path, image: Path) -> None:
    found, wanted = stored_header(mask), stored_header(image)
    for field in wanted.keys():  # noqa: SIM118 - a header is no dictionary
        if field not in OWN_FIELDS:
            assert found[field].tobytes() == wanted[field].tobytes(), field
    assert found["datatype"] == 2
    assert nib.load(mask).affine.tobytes() == nib.load(image).affine.tobytes()


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("oblique", [False, True])
def test_mask_of_a_volume_has_the_geometry_of_its_image_bit_for_bit(
    code: str, oblique: bool, tmp_path: Path
) -> None:
    assert len(CODES) == 48
    source = write_volume(tmp_path / "a.nii.gz", make_affine(code, oblique=oblique))
    image = read_image(source)
    (mask,) = write_prediction(
        segment(image), image, out=tmp_path / "out", relative=Path("a.nii.gz")
    )
    assert_same_geometry(mask, source)
    labels = (image.array > 127).astype(np.uint8)
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), labels)
    seen, original = SimpleITK.ReadImage(str(mask)), SimpleITK.ReadImage(str(source))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(seen).T, labels)
    assert seen.GetDirection() == original.GetDirection()
    assert seen.GetOrigin() == original.GetOrigin()
    assert seen.GetSpacing() == original.GetSpacing()
    np.testing.assert_array_equal(read_mask(mask, classes=2), labels)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("sform", "qform"), [(0, 1), (1, 0), (4, 3), (2, 2)])
def test_form_codes_and_compression_are_preserved(
    name: str, sform: int, qform: int, tmp_path: Path
) -> None:
    affine = make_affine("LPS", oblique=True)
    values = np.zeros(SHAPE, dtype=np.int16)
    image = nib.Nifti1Image(values, affine)
    image.set_qform(affine, code=qform)
    image.set_sform(affine, code=sform)
    nib.save(image, tmp_path / name)
    read = read_image(tmp_path / name)
    (mask,) = write_prediction(segment(read), read, out=tmp_path / "out", relative=Path(name))
    assert_same_geometry(mask, tmp_path / name)
    assert (mask.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


def test_big_endian_scaled_header_with_extension_is_preserved(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header.set_sform(make_affine("RAS", oblique=True), code=1)
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"kept"))
    image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), None, header)
    image.header.set_slope_inter(0.001, 0.25)
    nib.save(image, tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii")
    assert read.header.endianness == ">"
    prediction = segment(read, keep=True)
    mask, probabilities = write_prediction(
        prediction, read, out=tmp_path / "out", relative=Path("a.nii"), save_prob=True
    )
    for path in (mask, probabilities):
        written = nib.load(path)
        assert written.header.endianness == ">"
        assert written.header.extensions[0].get_content() == b"kept"
        assert written.affine.tobytes() == nib.load(tmp_path / "a.nii").affine.tobytes()
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), prediction.labels)
    np.testing.assert_array_equal(
        np.asanyarray(nib.load(probabilities).dataobj), prediction.probabilities[1]
    )


def test_volume_with_a_singleton_fourth_axis_keeps_its_dimensions(tmp_path: Path) -> None:
    values = (np.random.default_rng(1).random((*SHAPE, 1)) > 0.5).astype(np.uint8) * 255
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "a.nii")
    read = read_image(tmp_path / "a.nii")
    (mask,) = write_prediction(segment(read), read, out=tmp_path / "out", relative=Path("a.nii"))
    assert_same_geometry(mask, tmp_path / "a.nii")
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), values // 255)


def test_volume_without_a_header_gets_one_from_its_affine(tmp_path: Path) -> None:
    affine = make_affine("PIR", oblique=True)
    image = ImageFile(
        path=Path("made"), array=np.zeros(SHAPE, np.uint8), kind="volume", affine=affine
    )
    (mask,) = write_prediction(segment(image), image, out=tmp_path, relative=Path("a.nii.gz"))
    np.testing.assert_allclose(nib.load(mask).affine, affine, atol=1e-5)


def test_probabilities_of_several_classes_are_written_as_4d_volume(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz", make_affine("RAS", oblique=False))
    image = read_image(source)
    values = np.random.default_rng(2).random((3, *SHAPE), dtype=np.float32)
    prediction = Prediction(
        labels=values.argmax(0).astype(np.uint8), num_classes=3, probabilities=values
    )
    mask, path = write_prediction(
        prediction, image, out=tmp_path / "out", relative=Path("a.nii.gz"), save_prob=True
    )
    assert path.name == "a_prob.nii.gz"
    stored = np.asanyarray(nib.load(path).dataobj)
    assert stored.dtype == np.float32
    np.testing.assert_array_equal(np.moveaxis(stored, -1, 0), values)
    np.testing.assert_array_equal(np.asanyarray(nib.load(mask).dataobj), prediction.labels)


def pixels(height: int = 33, width: int = 57) -> ImageFile:
    array = np.random.default_rng(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return ImageFile(path=Path("x.jpg"), array=array, kind="image")


def make_prediction(image: ImageFile, num_classes: int) -> Prediction:
    grid = image.array.shape[:2]
    values = np.random.default_rng(5).random((num_classes, *grid), dtype=np.float32)
    values /= values.sum(axis=0)
    return Prediction(
        labels=values.argmax(0).astype(np.uint8), num_classes=num_classes, probabilities=values
    )


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("grid", [(33, 57), (1, 40), (40, 1), (1, 1)])
def test_mask_of_an_image_round_trips(
    suffix: str, num_classes: int, grid: tuple[int, int], tmp_path: Path
) -> None:
    image = pixels(*grid)
    prediction = make_prediction(image, num_classes)
    (path,) = write_prediction(prediction, image, out=tmp_path, relative=Path(f"s/x{suffix}"))
    assert path == tmp_path / "s" / f"x{suffix}"
    with Image.open(path) as stored:
        assert stored.mode == "L"
        assert stored.format == {".png": "PNG", ".bmp": "BMP"}.get(suffix.lower(), "TIFF")
        values = np.asarray(stored)
    wanted = prediction.labels * np.uint8(255 if num_classes == 2 else 1)
    np.testing.assert_array_equal(values, wanted)
    np.testing.assert_array_equal(read_mask(path, classes=num_classes), prediction.labels)


def test_foreground_probability_is_a_16_bit_image(tmp_path: Path) -> None:
    image = pixels()
    prediction = make_prediction(image, 2)
    mask, path = write_prediction(
        prediction, image, out=tmp_path, relative=Path("x.png"), save_prob=True
    )
    assert (mask.name, path.name) == ("x.png", "x_prob.png")
    read = read_image(path)
    assert read.array.dtype == np.uint16
    np.testing.assert_allclose(read.array[..., 0] / 65535, prediction.probabilities[1], atol=1e-5)


def test_probabilities_of_several_classes_are_an_npz_without_pickle(tmp_path: Path) -> None:
    image = pixels()
    prediction = make_prediction(image, 4)
    _, path = write_prediction(
        prediction, image, out=tmp_path, relative=Path("x.png"), save_prob=True
    )
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_allclose(archive["probabilities"], prediction.probabilities, atol=1e-3)


def test_equal_predictions_give_equal_files(tmp_path: Path) -> None:
    source = write_volume(tmp_path / "a.nii.gz", make_affine("RAS", oblique=False))
    contents = []
    for folder in ("1", "2"):
        made: list[Path] = []
        for image, relative in ((read_image(source), "a.nii.gz"), (pixels(), "x.png")):
            prediction = (
                segment(image, keep=True) if image.kind == "volume" else make_prediction(image, 3)
            )
            made += write_prediction(
                prediction,
                image,
                out=tmp_path / folder,
                relative=Path(relative),
                save_prob=True,
                overlay=True,
            )
        contents.append([path.read_bytes() for path in made])
    assert len(contents[0]) == 6
    assert contents[0] == contents[1]


def test_prediction_on_another_grid_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="on a grid of"):
        write_prediction(
            make_prediction(pixels(20, 20), 2), pixels(), out=tmp_path, relative=Path("x.png")
        )
    assert list(tmp_path.iterdir()) == []


def test_error_for_missing_probabilities_names_the_option(tmp_path: Path) -> None:
    bare = Prediction(labels=np.zeros((33, 57), np.uint8), num_classes=2)
    with pytest.raises(ValueError, match="keep_probabilities=True"):
        write_prediction(bare, pixels(), out=tmp_path, relative=Path("x.png"), save_prob=True)


def test_existing_mask_is_replaced_without_temporary_files(tmp_path: Path) -> None:
    for num_classes in (2, 3):
        write_prediction(
            make_prediction(pixels(), num_classes), pixels(), out=tmp_path, relative=Path("x.png")
        )
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert read_mask(tmp_path / "x.png", classes=3).max() == 2


def test_longest_possible_file_name_is_written(tmp_path: Path) -> None:
    relative = Path("x" * 251 + ".png")
    (path,) = write_prediction(
        make_prediction(pixels(), 2), pixels(), out=tmp_path, relative=relative
    )
    assert path.is_file()
    with pytest.raises(WriteError, match="cannot write"):
        write_prediction(
            make_prediction(pixels(), 2), pixels(), out=tmp_path, relative=Path("x" * 300 + ".png")
        )


@contextmanager
def somebody_in(folder: Path) -> Iterator[None]:
    """Work in a folder with restricted permissions. Root temporarily becomes `nobody`."""
    back, user = Path.cwd(), os.geteuid()
    os.chdir(folder)  # relative names need no permission for the folders above
    if user == 0:
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        os.chdir(back)
        folder.chmod(stat.S_IRWXU)


def test_error_for_read_only_folder_is_one_line(tmp_path: Path) -> None:
    case = {"out": Path(), "relative": Path("x.png")}
    with somebody_in(tmp_path):
        assert write_prediction(make_prediction(pixels(), 2), pixels(), **case) == [Path("x.png")]
        Path("x.png").unlink()
        Path().chmod(stat.S_IRUSR | stat.S_IXUSR)
        with pytest.raises(WriteError, match="cannot write") as caught:
            write_prediction(make_prediction(pixels(), 2), pixels(), **case)
        assert not list(Path().iterdir())
    assert "\n" not in str(caught.value)


def test_error_for_file_instead_of_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(WriteError, match="cannot write") as caught:
        write_prediction(
            make_prediction(pixels(), 2), pixels(), out=tmp_path / "out", relative=Path("x.png")
        )
    assert "\n" not in str(caught.value)


def test_full_disk_leaves_the_existing_mask(tmp_path: Path) -> None:
    image = pixels(300, 300)
    (path,) = write_prediction(
        make_prediction(image, 2), image, out=tmp_path, relative=Path("x.png")
    )
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*x\.png"):
            write_prediction(make_prediction(image, 4), image, out=tmp_path, relative=Path("x.png"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert [found.name for found in tmp_path.iterdir()] == ["x.png"]


def test_16_bit_image_is_predicted_and_written(tmp_path: Path) -> None:
    shown = np.zeros((33, 57), dtype=np.uint16)
    shown[5:20, 10:40] = 60000
    (tmp_path / "in").mkdir()
    Image.fromarray(shown).save(tmp_path / "in" / "deep.png")
    (item,) = plan_output_paths(
        [(tmp_path / "in" / "deep.png", Path("deep.png"))], out=tmp_path / "out"
    )
    image = read_image(item.source)
    paths = write_prediction(
        segment(image), image, out=tmp_path / "out", relative=item.relative, overlay=True
    )
    assert [path.name for path in paths] == ["deep.png", "deep_overlay.png"]
    np.testing.assert_array_equal(read_mask(paths[0], classes=2), (shown > 0).astype(np.uint8))
