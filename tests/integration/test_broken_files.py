"""Test 29 kinds of broken files with the suffix of every format, using the real command."""

import gzip
import importlib.util
import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from PIL import Image

from segnetr.data.readers.image_integrity import BrokenImageError, walk_pages
from segnetr.data.readers.nifti_stream import open_volume
from segnetr.data.readers.read_files import open_image, read_image, read_mask
from segnetr.errors import ReadError
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import ModelCard, write_model

PARTIAL = 3
RANDOM = np.random.default_rng(11)
PLANE = RANDOM.integers(0, 256, (40, 32), dtype=np.uint8)
VOXELS = RANDOM.integers(-500, 500, (20, 16, 3)).astype(np.int16)

HAS_DICOM = importlib.util.find_spec("pydicom") is not None


def image(kind: str, *, pages: int = 1) -> bytes:
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": [Image.fromarray(PLANE)] * 2} if pages > 1 else {}
    Image.fromarray(PLANE).save(buffer, format=kind, **more)
    return buffer.getvalue()


def without_padding(data: bytes) -> bytes:
    """Remove the padding that Pillow adds to the last page, so that the last byte matters."""
    while data:
        try:
            assert sum(1 for _ in walk_pages(data[:-1])) == 3
        except BrokenImageError:
            break
        data = data[:-1]
    return data


def nifti() -> bytes:
    return nib.Nifti1Image(VOXELS, np.diag([1.5, 1.5, 3.0, 1.0])).to_bytes()


def by_itk(name: str, folder: Path, *, packed: bool) -> bytes:
    path = folder / name
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(path), packed)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the content of a valid file for every single-file format, by name."""
    folder = tmp_path_factory.mktemp("whole")
    files = {
        "p.png": image("PNG"),
        "j.jpg": image("JPEG"),
        "b.bmp": image("BMP"),
        "one.tif": image("TIFF"),
        "pages.tif": without_padding(image("TIFF", pages=3)),
        "n.nii": nifti(),
        "nifti.nii.gz": gzip.compress(nifti()),
        "nrrd_raw.nrrd": by_itk("nrrd_raw.nrrd", folder, packed=False),
        "nrrd_packed.nrrd": by_itk("nrrd_packed.nrrd", folder, packed=True),
        "mha_raw.mha": by_itk("mha_raw.mha", folder, packed=False),
        "mha_packed.mha": by_itk("mha_packed.mha", folder, packed=True),
    }
    if HAS_DICOM:
        from support.dicom_files import write_slice

        files["slice.dcm"] = write_slice(folder / "slice.dcm", VOXELS[:, :, 0].T, 0).read_bytes()
    return files


def zip_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, PLANE)
    return buffer.getvalue()


def gif() -> bytes:
    return image("GIF")


KINDS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "one byte": lambda data: data[:1],
    "two bytes": lambda data: data[:2],
    "sixteen bytes": lambda data: data[:16],
    "a hundred bytes": lambda data: data[:100],
    "a tenth": lambda data: data[: len(data) // 10],
    "a quarter": lambda data: data[: len(data) // 4],
    "half": lambda data: data[: len(data) // 2],
    "three quarters": lambda data: data[: len(data) * 3 // 4],
    "ninety-nine percent": lambda data: data[: len(data) * 99 // 100],
    "last byte missing": lambda data: data[:-1],
    "zeros": lambda data: bytes(len(data)),
    "ones": lambda data: b"\xff" * len(data),
    "noise": lambda data: np.random.default_rng(len(data)).bytes(len(data)),
    "backwards": lambda data: data[::-1],
    "first bytes lost": lambda data: data[200:],
    "first bytes zero": lambda data: bytes(132) + data[132:],
    "text": lambda _: b"this is no image\n" * 50,
    "text of 16 bits": lambda _: ("no image\n" * 200).encode("utf-16"),
    "page of a server": lambda _: b"<!DOCTYPE html><html><body>404</body></html>" * 20,
    "json": lambda _: json.dumps({"error": "expired"}).encode() * 40,
    "xml": lambda _: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>' * 20,
    "pdf": lambda _: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" * 40,
    "zip": lambda data: zip_of("a", data),
    "gzip of text": lambda _: gzip.compress(b"no image " * 99),
    "zlib of text": lambda _: zlib.compress(b"no image " * 999),
    "npy": lambda _: npy(),
    "pickle": lambda _: pickle.dumps({"image": PLANE}),
    "gif": lambda _: gif(),
}


def readers_of(name: str) -> list[Callable[[Path], object]]:
    """Return all functions that read a file of this name, as a whole or in parts."""
    readers = [read_image, read_two_classes]
    if name.endswith((".nii", ".nii.gz")):
        readers.append(lambda path: open_volume(path, max_pixels=10**6))
    if name.endswith((".png", ".jpg", ".bmp", ".tif")):
        # As with --max-memory, check the size first.
        readers.append(
            lambda path: (open_image(path, check_pixels=lambda *_: None), read_image(path))
        )
    return readers


def test_every_reader_rejects_every_kind_of_broken_file(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert len(KINDS) >= 25
    for name, data in whole.items():
        if name.endswith(".dcm"):
            continue  # each one starts a process, and the command below reads all of them
        path = tmp_path / name
        path.write_bytes(data)
        assert read_image(path).array.size
        for kind, corrupt in KINDS.items():
            path.write_bytes(corrupt(data))
            for read in readers_of(name):
                check_refusal(refusal(read, path), path, f"{kind} as {name}")


@pytest.mark.parametrize("names", [("a.nhdr", "a.raw"), ("b.mhd", "b.raw")])
def test_every_kind_of_broken_header_or_separate_data_file_is_rejected(
    names: tuple[str, str], tmp_path: Path
) -> None:
    by_itk(names[0], tmp_path, packed=False)
    header = tmp_path / names[0]
    assert read_image(header).array.size
    for name in names:
        data = (tmp_path / name).read_bytes()
        for kind, corrupt in KINDS.items():
            corrupted = corrupt(data)
            # Any bytes of the correct length are valid voxels, and the last byte of a header only
            # ends a line.
            if len(corrupted) == len(data) if name == names[1] else kind == "last byte missing":
                continue
            (tmp_path / name).write_bytes(corrupted)
            check_refusal(refusal(read_image, header), header, f"{kind} as {name}")
        (tmp_path / name).write_bytes(data)


def check_refusal(message: str | None, path: Path, what: str) -> None:
    assert message is not None, f"{what} was read"
    assert message.startswith(f"{path}: "), what
    assert "\n" not in message, what
    assert len(message) < len(str(path)) + 260, what


def read_two_classes(path: Path) -> object:
    return read_mask(path, classes=2)


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """Return the error message of a reader. Any other exception fails the test."""
    try:
        read(path)
    except ReadError as error:
        return str(error)
    return None


def test_error_for_a_broken_dicom_slice_names_the_file(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("pydicom")
    from segnetr.data.readers.dicom.worker import work

    path = tmp_path / "slice.dcm"
    request = {"action": "read", "path": str(path), "series": None, "max_pixels": 10**6}
    for kind, corrupt in KINDS.items():
        path.write_bytes(corrupt(whole["slice.dcm"]))
        message = refusal(lambda _: list(work(request, io.BytesIO())[1]), path)
        check_refusal(message, path, kind)


def test_error_for_a_broken_zip_of_a_series_names_the_file(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    pytest.importorskip("pydicom")
    from segnetr.data.readers.dicom.worker import work

    path = tmp_path / "series.zip"
    request = {"action": "read", "path": str(path), "series": None, "max_pixels": 10**6}
    packed = zip_of("slice.dcm", whole["slice.dcm"])
    path.write_bytes(packed)
    assert list(work(request, io.BytesIO())[1])
    for kind, corrupt in KINDS.items():
        path.write_bytes(corrupt(packed))
        message = refusal(lambda _: list(work(request, io.BytesIO())[1]), path)
        assert message is not None, kind
        # The name of the zip file or of a slice in it.
        check_refusal(message.replace(f"{path}/slice.dcm: ", f"{path}: "), path, kind)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return the folder of an untrained model."""
    torch.manual_seed(0)
    card = ModelCard(
        architecture={"architecture": "unet", "width": 2},  # type: ignore[arg-type]
        classes=("background", "lesion"),
        in_channels=1,
        image_size=(32, 32),
        intensity={"mean": (0.5,), "std": (0.25,)},  # type: ignore[arg-type]
        predict={},  # type: ignore[arg-type]
        dataset="synthetic",
        data_license="Apache-2.0",
        split_sha256="0" * 64,
        scores={},
        versions={},
    )
    network = build_model(card.architecture, in_channels=1, num_classes=2, image_size=(32, 32))
    write_model(tmp_path / "run" / "model", network.state_dict(), card=card)
    return tmp_path / "run"


@pytest.mark.slow
def test_command_processes_all_valid_files_in_a_folder_with_broken_ones(
    whole: dict[str, bytes], model: Path, tmp_path: Path, command: Callable[..., object]
) -> None:
    folder = tmp_path / "in"
    bad = ("half", "zeros", "text", "noise")
    for name, data in whole.items():
        if name.endswith(".dcm"):
            (folder / "fine").mkdir(parents=True)
            (folder / "fine" / "1.dcm").write_bytes(data)
            (folder / "torn").mkdir()
            (folder / "torn" / "1.dcm").write_bytes(data[:-9])
            continue
        stem, _, suffix = name.partition(".")
        folder.mkdir(exist_ok=True)
        (folder / f"good_{name}").write_bytes(data)
        for kind in bad:
            (folder / f"bad_{stem}_{kind}.{suffix}").write_bytes(KINDS[kind](data))
    result = command("predict", folder, "--model", model, "--out", tmp_path / "out", "--json")
    assert result.returncode == PARTIAL, result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    facts = json.loads(result.stdout)
    good = set(folder.glob("good_*"))
    if HAS_DICOM:
        good.add(folder / "fine")
    broken = set(folder.glob("bad_*"))
    if HAS_DICOM:
        broken.add(folder / "torn")
    assert {Path(item["input"]) for item in facts["done"]} == good
    assert len(facts["failed"]) == len(broken)
    named = {Path(item["reason"].partition(": ")[0]) for item in facts["failed"]}
    assert {path.parent if path.name == "1.dcm" else path for path in named} == broken
    written = {item["mask"] for item in facts["done"]}
    assert all((tmp_path / "out" / mask).is_file() for mask in written)
    assert {"good_p.png", "good_one.tif", "good_pages.tif", "good_nifti.nii.gz",
            "good_nrrd_raw.nrrd", "good_mha_packed.mha"} <= written  # fmt: skip


def test_command_has_flags_for_format_and_series(
    whole: dict[str, bytes], model: Path, tmp_path: Path, command: Callable[..., object]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(whole["j.jpg"])
    out = tmp_path / "out"
    flags = ("--model", model, "--out", out, "--quiet")
    assert command("predict", folder, *flags, "--format", "palette").returncode == 0
    with Image.open(out / "a.png") as stored:
        assert stored.mode == "P"
    refused = command("predict", folder, *flags, "--format", "nii.gz")
    assert refused.returncode == 2
    assert "cannot be written as nii.gz" in refused.stderr
    refused = command("predict", folder, *flags, "--format", "jpeg")
    assert refused.returncode == 2
    assert "--format jpeg: unknown format; use one of same, png" in refused.stderr
    refused = command("predict", folder, *flags, "--series", "1.2.3")
    assert refused.returncode == 2
    assert "no input has it; there are none" in refused.stderr
    (folder / "a.jpg").rename(tmp_path / "b.jpg")
    (folder / "a.nrrd").write_bytes(whole["nrrd_raw.nrrd"])
    assert command("predict", folder, *flags, "--format", "nii.gz").returncode == 0
    np.testing.assert_allclose(
        nib.load(out / "a.nii.gz").affine, read_image(folder / "a.nrrd").affine
    )


def test_memory_limit_rejects_volumes_that_cannot_be_read_plane_by_plane(
    whole: dict[str, bytes], model: Path, tmp_path: Path, command: Callable[..., object]
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("nrrd_raw.nrrd", "pages.tif", "n.nii"):
        (folder / name).write_bytes(whole[name])
    flags = ("--model", model, "--out", tmp_path / "out", "--max-memory", "32G", "--json")
    result = command("predict", folder, *flags)
    assert result.returncode == PARTIAL, result.stderr
    facts = json.loads(result.stdout)
    assert [item["mask"] for item in facts["done"]] == ["n.nii"]
    assert all("--max-memory supports images and NIfTI" in item["reason"]
               for item in facts["failed"])  # fmt: skip
    assert len(facts["failed"]) == 2
