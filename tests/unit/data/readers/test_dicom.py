"""Test that DICOM series are sorted by position, selected by UID and rejected with one line."""

import contextlib
import io
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK

pytest.importorskip("pydicom")

import pydicom
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from support.dicom_files import (
    ROOT_UID,
    SHAPE,
    STEP,
    draw_voxels,
    write_series,
    write_slice,
    zip_folder,
)

from segnetr.data.readers.dicom import series as dicom_series
from segnetr.data.readers.dicom.worker import work
from segnetr.data.readers.file_list import list_images
from segnetr.data.readers.read_files import read_image
from segnetr.engine.inference.predictor import Prediction
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.masks.writer import write_prediction

SERIES_UID = f"{ROOT_UID}.2"
OTHER_UID = f"{ROOT_UID}.4"


def read_here(path: Path, series: str | None = None, max_pixels: int = 10**6) -> np.ndarray:
    """Run the worker in this process and stack the slices it sends."""
    request = {"action": "read", "path": str(path), "series": series, "max_pixels": max_pixels}
    facts, chunks = work(request, io.BytesIO())
    columns, rows, depth = facts["extent"]
    voxels = np.frombuffer(b"".join(chunks), dtype=facts["dtype"])
    return voxels.reshape(depth, rows, columns).transpose(2, 1, 0)


def refuse(path: Path, **options: Any) -> str:
    with pytest.raises(ReadError) as caught:
        read_here(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def change(path: Path, **fields: Any) -> None:
    data = pydicom.dcmread(path)
    for name, value in fields.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    data.save_as(path)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    return write_series(tmp_path / "scan")


@pytest.mark.slow
def test_series_is_sorted_by_position_and_has_the_geometry_of_itk(series: Path) -> None:
    image = read_image(series)
    np.testing.assert_array_equal(image.array, draw_voxels())
    assert image.array.dtype == np.int16
    assert image.kind == "volume"
    assert image.source_header.names == ("4.dcm", "3.dcm", "2.dcm", "1.dcm")
    assert image.spacing == (1.25, 0.75, STEP)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    seen = reader.Execute()
    lps = np.eye(4)
    lps[:3, :3] = np.array(seen.GetDirection()).reshape(3, 3) * np.array(seen.GetSpacing())
    lps[:3, 3] = seen.GetOrigin()
    np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ lps, image.affine, atol=1e-9)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(seen).T, image.array)


def test_zip_is_read_like_its_folder_without_writing_files(series: Path, tmp_path: Path) -> None:
    packed = zip_folder(series, tmp_path / "scan.zip")
    before = sorted(tmp_path.rglob("*"))
    np.testing.assert_array_equal(read_here(packed), draw_voxels())
    assert sorted(tmp_path.rglob("*")) == before
    broken = bytearray(packed.read_bytes())
    broken[len(broken) // 3] ^= 0xFF
    packed.write_bytes(broken)
    refuse(packed)
    packed.write_bytes(bytes(broken[: len(broken) // 2]))
    assert "damaged zip file" in refuse(packed)


@pytest.mark.slow
def test_oblique_slices_along_any_axis_are_sorted_along_their_normal(tmp_path: Path) -> None:
    angle = np.deg2rad(20)
    row = np.array([0.0, np.cos(angle), np.sin(angle)])
    column = np.array([0.0, -np.sin(angle), np.cos(angle)])
    normal = np.cross(row, column)
    voxels = draw_voxels(1)
    for number in range(SHAPE[2]):
        write_slice(
            tmp_path / f"{number}",
            np.ascontiguousarray(voxels[:, :, number].T),
            number,
            ImageOrientationPatient=[round(float(x), 6) for x in (*row, *column)],
            ImagePositionPatient=[round(float(x), 6) for x in normal * number * STEP],
        )
    image = read_image(tmp_path)
    np.testing.assert_array_equal(image.array, voxels)
    np.testing.assert_allclose(image.affine[:3, 2], (-1, -1, 1) * normal * STEP, atol=1e-5)


def test_several_series_are_listed_and_one_is_selected_by_uid(series: Path) -> None:
    for number in range(3):
        pixels = np.full((5, 6), number, np.int16)
        write_slice(series / f"b{number}.dcm", pixels, number, SeriesInstanceUID=OTHER_UID)
    message = refuse(series)
    assert "2 series, choose one by --series UID" in message
    assert f"{SERIES_UID} (MR synthetic, 4 files)" in message
    assert f"{OTHER_UID} (MR synthetic, 3 files)" in message
    np.testing.assert_array_equal(read_here(series, SERIES_UID), draw_voxels())
    assert read_here(series, OTHER_UID).shape == (6, 5, 3)
    assert "no series 1.2.3; it has" in refuse(series, series="1.2.3")


@pytest.mark.slow
def test_folders_of_slices_are_listed_as_images_and_filtered_by_series(
    series: Path, tmp_path: Path
) -> None:
    write_series(tmp_path / "deep" / "1.2.840", SeriesInstanceUID=OTHER_UID)
    (tmp_path / "deep" / "1.2.840" / "DICOMDIR").write_bytes(b"points anywhere")
    (tmp_path / "deep" / "notes.txt").write_text("none")
    found = list_images([tmp_path], dicom=True)
    wanted = [(tmp_path / "deep" / "1.2.840", Path("deep/1.2.840.dcm")), (series, Path("scan.dcm"))]
    assert found == wanted
    assert list_images([series], dicom=True) == [(series, Path("scan.dcm"))]
    assert list_images([tmp_path], dicom=True, series=OTHER_UID) == wanted[:1]
    with pytest.raises(UsageError, match=f"no input has it; there are {OTHER_UID}, {SERIES_UID}"):
        list_images([tmp_path], dicom=True, series="1.2.3")
    with pytest.raises(UsageError, match="no images in this folder"):
        list_images([tmp_path])


def test_values_are_rescaled_to_the_smallest_sufficient_data_type(tmp_path: Path) -> None:
    voxels = np.abs(draw_voxels()).astype(np.uint16)
    unsigned = {"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11}
    write_series(tmp_path / "ct", voxels, RescaleSlope=1, RescaleIntercept=-1024, **unsigned)
    read = read_here(tmp_path / "ct")
    assert read.dtype == np.int16
    np.testing.assert_array_equal(read, voxels.astype(int) - 1024)
    write_series(tmp_path / "pet", voxels, RescaleSlope="0.25", RescaleIntercept="3", **unsigned)
    read = read_here(tmp_path / "pet")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, voxels * 0.25 + 3)
    write_series(tmp_path / "plain", voxels, **unsigned)
    assert read_here(tmp_path / "plain").dtype == np.int16


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
def test_compressed_pixels_are_decoded(syntax: UID, series: Path) -> None:
    if syntax == JPEGLSLossless:
        pytest.importorskip("jpeg_ls")
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.compress(syntax)
        data.save_as(path)
    np.testing.assert_array_equal(read_here(series), draw_voxels())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_plain_and_deflated_files_are_read(syntax: UID, series: Path) -> None:
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        fresh = pydicom.FileDataset(
            str(path), dict(data), file_meta=data.file_meta, preamble=bytes(128)
        )
        pydicom.dcmwrite(path, fresh, enforce_file_format=True)
    np.testing.assert_array_equal(read_here(series), draw_voxels())


def first(series: Path) -> Path:
    return series / "1.dcm"


def cut(series: Path, share: float) -> None:
    data = first(series).read_bytes()
    first(series).write_bytes(data[: int(len(data) * share)])


def lose_decoder(series: Path) -> None:
    data = pydicom.dcmread(first(series))
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"no codestream!"])
    data["PixelData"].VR = "OB"
    data.save_as(first(series))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty file": (lambda s: first(s).write_bytes(b""), "1.dcm: not a DICOM file"),
    "text": (lambda s: first(s).write_bytes(b"no slice " * 99), "1.dcm: not a DICOM file"),
    "png": (lambda s: first(s).write_bytes(b"\x89PNG\r\n\x1a\n" * 99), "not a DICOM file"),
    "preamble alone": (lambda s: cut(s, 0.2), "1.dcm: "),
    "cut in its header": (lambda s: cut(s, 0.6), "1.dcm: "),
    "cut in its pixels": (lambda s: cut(s, 0.99), "1.dcm: "),
    "pixels too few": (
        lambda s: change(first(s), PixelData=bytes(20)),
        "1.dcm: cut off: 20 of 60 bytes",
    ),
    "pixels missing": (lambda s: change(first(s), PixelData=None), "pixels are missing"),
    "giant rows": (lambda s: change(first(s), Rows=60000, Columns=60000), "max_pixels"),
    "all giant": (
        lambda s: [change(path, Rows=60000, Columns=60000) for path in s.iterdir()],
        "data.max_pixels",
    ),
    "gap": (lambda s: (s / "2.dcm").unlink(), "1.dcm: a gap: it lies 5 mm behind 3.dcm"),
    "two at one place": (
        lambda s: change(first(s), ImagePositionPatient=[-10, 20, 30]),
        "several times or echoes",
    ),
    "turned slice": (
        lambda s: change(first(s), ImageOrientationPatient=[0, 1, 0, 0, 0, 1]),
        "mixed orientations: it lies otherwise than 1.dcm",
    ),
    "tilted gantry": (
        lambda s: [
            change(path, ImagePositionPatient=[-10, 20 + int(path.stem), 30 - 2.5 * int(path.stem)])
            for path in s.iterdir()
        ],
        "shifted sideways",
    ),
    "no place": (lambda s: change(first(s), ImagePositionPatient=None), "ImagePositionPatient"),
    "no orientation": (
        lambda s: change(first(s), ImageOrientationPatient=None),
        "ImageOrientationPatient is missing",
    ),
    "no spacing": (lambda s: change(first(s), PixelSpacing=None), "PixelSpacing is missing"),
    "other spacing": (lambda s: change(s / "2.dcm", PixelSpacing=[1, 1]), "PixelSpacing differs"),
    "zero spacing": (
        lambda s: [change(path, PixelSpacing=[0, 0]) for path in s.iterdir()],
        "spacing is 0 x 0 x 2.5 mm",
    ),
    "skewed directions": (
        lambda s: change(first(s), ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0]),
        "right-angled",
    ),
    "colors": (lambda s: change(first(s), SamplesPerPixel=3), "3 values for each pixel"),
    "frames": (lambda s: change(first(s), NumberOfFrames=7), "7 frames"),
    "other size": (lambda s: change(s / "2.dcm", Rows=4), "where 1.dcm of its series is 6 x 5"),
    "other direction of gray": (
        lambda s: change(s / "2.dcm", PhotometricInterpretation="MONOCHROME1"),
        "gray values run the other way",
    ),
    "no decoder": (lose_decoder, "1.dcm: "),
    "no image": (
        lambda s: [change(path, Rows=None, Columns=None) for path in s.iterdir()],
        "no DICOM image",
    ),
    "cut before its rows": (
        lambda s: change(first(s), Rows=None, Columns=None, PixelData=None),
        "1.dcm: cut off: it has no pixels",
    ),
    "nameless and empty": (lambda s: (s / "IM0007").write_bytes(b""), "IM0007: not a DICOM"),
    "no series": (lambda s: change(first(s), SeriesInstanceUID=None), "SeriesInstanceUID is"),
    "slope of zero": (lambda s: change(first(s), RescaleSlope=0), "RescaleSlope is 0"),
    "no file": (lambda s: [path.unlink() for path in s.iterdir()], "contains no DICOM file"),
    "slice without thickness": (
        lambda s: [
            [path.unlink() for path in sorted(s.iterdir())[1:]],
            change(first(s), SliceThickness=None),
        ],
        "its thickness is missing",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_series_gives_a_one_line_error_with_the_reason(kind: str, series: Path) -> None:
    corrupt, reason = BROKEN[kind]
    corrupt(series)
    assert reason in refuse(series)


def test_slice_truncated_at_any_percent_is_rejected(series: Path) -> None:
    data = first(series).read_bytes()
    for percent in range(100):
        first(series).write_bytes(data[: len(data) * percent // 100])
        assert "1.dcm" in refuse(series), percent


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flipped_bytes_raise_read_error_or_nothing(series: Path) -> None:
    data = first(series).read_bytes()
    for position in range(128, len(data) - 60, 5):
        broken = bytearray(data)
        broken[position] ^= 0x81
        first(series).write_bytes(broken)
        # Most flips only change a value. Any other exception fails the test.
        with contextlib.suppress(ReadError):
            read_here(series)


@pytest.mark.slow
def test_errors_limits_and_timeouts_of_the_child_process_give_one_line(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (series / "2.dcm").unlink()
    with pytest.raises(ReadError, match=r"scan/1\.dcm: a gap"):
        read_image(series)
    with pytest.raises(ReadError, match=r"no series 1\.2\.3"):
        read_image(series, series="1.2.3")
    # The child already uses more than this when it starts, so its next large allocation fails.
    monkeypatch.setattr(dicom_series, "_MEMORY_BYTES", 32 * 2**20)
    large = series.with_name("large")
    write_slice(large / "1.dcm", np.zeros((4000, 4000), np.int16), 0)
    with pytest.raises(ReadError, match=r"large: reading it needs more than 32 MiB of memory"):
        read_image(large)
    monkeypatch.undo()
    monkeypatch.setattr(dicom_series, "count_seconds", lambda _: 0)
    with pytest.raises(ReadError, match="scan: reading it took longer than 0 s"):
        read_image(series)


def test_error_after_the_first_slices_were_sent_is_still_raised(series: Path) -> None:
    change(series / "1.dcm", PixelData=bytes(20))
    with pytest.raises(ReadError, match=r"1\.dcm: cut off: 20 of 60"):
        read_image(series)


@pytest.mark.slow
def test_error_names_a_relative_path_as_relative(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(series.parent)
    (series / "2.dcm").unlink()
    with pytest.raises(ReadError, match=r"^scan/1\.dcm: a gap") as caught:
        read_image(Path("scan"))
    assert caught.value.path == Path("scan/1.dcm")
    with pytest.raises(ReadError, match=r"^scan: it has no series 1\.2\.3"):
        read_image(Path("scan"), series="1.2.3")


def test_missing_package_is_named_with_the_install_command(
    series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ReadError, match=r"pip install 'segnetr\[dicom\]'"):
        read_image(series)


def test_huge_claimed_size_allocates_no_memory_in_this_process(series: Path) -> None:
    for path in series.iterdir():
        change(path, Rows=60000, Columns=60000)
    tracemalloc.start()
    with pytest.raises(ReadError, match=r"data\.max_pixels"):
        read_image(series)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True])
def test_mask_of_a_series_is_a_dicom_segmentation_that_references_its_slices(
    packed: bool, series: Path, tmp_path: Path
) -> None:
    highdicom = pytest.importorskip("highdicom")
    source = zip_folder(series, tmp_path / "scan.zip") if packed else series
    image = read_image(source)
    labels = np.random.default_rng(1).integers(0, 3, SHAPE).astype(np.uint8)
    labels[:, :, 0] = 0
    (path,) = write_prediction(
        Prediction(labels=labels, num_classes=3),
        image,
        out=tmp_path / "out",
        relative=Path("scan.dcm"),
        classes=("background", "near", "far"),
    )
    stored = highdicom.seg.segread(path)
    assert stored.SOPClassUID.name == "Segmentation Storage"
    assert stored.StudyInstanceUID == f"{ROOT_UID}.1"
    assert stored.PatientID == "synthetic"
    assert [item.SegmentLabel for item in stored.SegmentSequence] == ["near", "far"]
    names = {name: number for number, name in enumerate(image.source_header.names)}
    found = np.zeros(SHAPE, dtype=np.uint8)
    positions = {}
    for number, name in enumerate(image.source_header.names):
        data = pydicom.dcmread(series / Path(name).name, stop_before_pixels=True)
        positions[data.SOPInstanceUID] = (number, list(data.ImagePositionPatient))
    assert len(names) == SHAPE[2]
    for frame, item in zip(
        stored.pixel_array, stored.PerFrameFunctionalGroupsSequence, strict=True
    ):
        source_item = item.DerivationImageSequence[0].SourceImageSequence[0]
        number, position = positions[source_item.ReferencedSOPInstanceUID]
        assert list(item.PlanePositionSequence[0].ImagePositionPatient) == position
        segment = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        found[:, :, number][frame.T > 0] = segment
    np.testing.assert_array_equal(found, labels)
    shared = stored.SharedFunctionalGroupsSequence[0]
    assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == [0.75, 1.25]
    assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]


@pytest.mark.slow
def test_empty_mask_is_a_segmentation_and_other_formats_can_be_selected(
    series: Path, tmp_path: Path
) -> None:
    highdicom = pytest.importorskip("highdicom")
    image = read_image(series)
    prediction = Prediction(labels=np.zeros(SHAPE, np.uint8), num_classes=2)
    for name in ("a.dcm", "a.nii.gz", "a.nrrd", "a.mha"):
        (path,) = write_prediction(prediction, image, out=tmp_path / "out", relative=Path(name))
        if name == "a.dcm":
            assert not highdicom.seg.segread(path).pixel_array.any()
        else:
            np.testing.assert_allclose(read_image(path).affine, image.affine, atol=1e-5)


@pytest.mark.slow
def test_series_without_the_attributes_of_a_segmentation_gives_a_one_line_error(
    tmp_path: Path,
) -> None:
    pytest.importorskip("highdicom")
    image = read_image(write_series(tmp_path / "scan", FrameOfReferenceUID=None))
    prediction = Prediction(labels=np.ones(SHAPE, np.uint8), num_classes=2)
    with pytest.raises(ReadError, match=r"cannot be a DICOM-SEG .*--format nii\.gz"):
        write_prediction(prediction, image, out=tmp_path / "out", relative=Path("a.dcm"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.data
def test_real_series_are_read_as_by_itk(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "dicom_hippocrop"
    if not root.is_dir():
        pytest.skip("dicom_hippocrop is not on this machine")
    found = list_images([root], dicom=True)
    assert [relative.name for _, relative in found] == ["13_HCropVolume.dcm", "11_HCropVolume.dcm"]
    for path, _ in found:
        reader = SimpleITK.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        np.testing.assert_array_equal(
            read_image(path).array, SimpleITK.GetArrayFromImage(reader.Execute()).T
        )
    for path in (found[0][0], found[1][0]):
        for file in path.iterdir():
            shutil.copy(file, tmp_path / f"{path.name}_{file.name}")
    assert "2 series, choose one by --series UID" in refuse(tmp_path)
    with zipfile.ZipFile(tmp_path / "both.zip", "w") as archive:
        for file in tmp_path.glob("*.dcm"):
            archive.write(file, file.name)
    assert "2 series" in refuse(tmp_path / "both.zip")
