"""Test values, geometry and errors of the NRRD and MetaImage readers."""

import contextlib
import gzip
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from segnetr.data.readers.read_files import read_image, read_mask
from segnetr.errors import ReadError

SHAPE = (7, 6, 5)
VOXELS = np.random.default_rng(7).integers(-900, 900, SHAPE).astype(np.int16)
TURN = (
    *(0.9553364891256060, -0.2823212366975178, 0.08733219254516084),
    *(0.2955202066613396, 0.9126678074548397, -0.2823212366975178),
    *(0.0, 0.2955202066613396, 0.9553364891256060),
)


def itk_image(array: np.ndarray = VOXELS, *, several: bool = False) -> SimpleITK.Image:
    axes = (2, 1, 0, 3) if several else (2, 1, 0)
    image = SimpleITK.GetImageFromArray(array.transpose(axes), isVector=several)
    image.SetSpacing((0.7, 1.3, 2.9))
    image.SetOrigin((-31.5, 12.1, 88.3))
    image.SetDirection(TURN)
    return image


def itk_affine(image: SimpleITK.Image) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    affine[:2] *= -1
    return affine


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.nrrd", "a.nhdr", "a.mha", "a.mhd", "a.NRRD"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "f4", "f8"])
def test_volume_written_by_itk_is_read_with_its_values_and_geometry(
    name: str, dtype: str, packed: bool, tmp_path: Path
) -> None:
    array = VOXELS.astype(dtype)
    image = itk_image(array)
    SimpleITK.WriteImage(image, str(tmp_path / name.lower()), packed)
    (tmp_path / name.lower()).rename(tmp_path / name)
    volume = read_image(tmp_path / name)
    assert volume.kind == "volume"
    assert volume.array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-12)
    np.testing.assert_allclose(volume.spacing, (0.7, 1.3, 2.9), rtol=1e-12)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha"])
def test_channels_are_the_last_axis_in_every_format(name: str, tmp_path: Path) -> None:
    array = np.random.default_rng(1).random((*SHAPE, 4)).astype(np.float32)
    SimpleITK.WriteImage(itk_image(array, several=True), str(tmp_path / name))
    volume = read_image(tmp_path / name, volume_channels=4)
    np.testing.assert_array_equal(volume.array, array)
    with pytest.raises(ReadError, match="volumes of three axes"):
        read_image(tmp_path / name)
    with pytest.raises(ReadError, match="3 channels"):
        read_image(tmp_path / name, volume_channels=3)


def test_label_volumes_of_both_formats_are_read_as_masks(tmp_path: Path) -> None:
    labels = (VOXELS > 0).astype(np.uint8)
    for name in ("a.nrrd", "a.mha"):
        SimpleITK.WriteImage(itk_image(labels), str(tmp_path / name))
        np.testing.assert_array_equal(read_mask(tmp_path / name, classes=2), labels)


NRRD = {
    "type": "int16",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "7 6 5",
    "space directions": "(1.5,0,0) (0,1.5,0) (0,0,3)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "1 2 3",
    "ElementSpacing": "1.5 1.5 3",
    "DimSize": "7 6 5",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}
DATA = VOXELS.tobytes(order="F")


def nrrd(data: bytes = DATA, *, without: str = "", **changes: str) -> bytes:
    fields = NRRD | {name.replace("_", " "): text for name, text in changes.items()}
    lines = [f"{name}: {text}" for name, text in fields.items() if name != without]
    return "\n".join(["NRRD0005", "# drawn", *lines, "by:=hand", "", ""]).encode() + data


def meta(data: bytes = DATA, *, without: str = "", **changes: str) -> bytes:
    default = META["ElementDataFile"]
    fields = {**META, **changes}
    fields["ElementDataFile"] = fields.pop("ElementDataFile", default)
    lines = [f"{name} = {text}\n" for name, text in fields.items() if name != without]
    return "".join(lines).encode() + data


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (1, 1)), ("RAS", (1, 1)), ("LAS", (-1, 1)),
     ("left-posterior-superior", (-1, -1)), ("scanner-xyz", (-1, -1))],
)  # fmt: skip
def test_every_nrrd_space_is_converted_to_right_anterior_superior(
    space: str, signs: tuple[int, int], tmp_path: Path
) -> None:
    (tmp_path / "a.nrrd").write_bytes(nrrd(space=space))
    volume = read_image(tmp_path / "a.nrrd")
    wanted = np.diag([1.5 * signs[0], 1.5 * signs[1], 3.0, 1.0])
    wanted[:3, 3] = (1 * signs[0], 2 * signs[1], 3)
    np.testing.assert_array_equal(volume.affine, wanted)
    assert any("scanner-xyz" in note for note in volume.warnings) == (space == "scanner-xyz")


def test_big_endian_data_and_crlf_headers_are_read(tmp_path: Path) -> None:
    swapped = VOXELS.astype(">i2").tobytes(order="F")
    text, _, _ = nrrd(endian="big").partition(b"\n\n")
    (tmp_path / "a.nrrd").write_bytes(text.replace(b"\n", b"\r\n") + b"\r\n\r\n" + swapped)
    (tmp_path / "a.mha").write_bytes(meta(swapped, BinaryDataByteOrderMSB="True"))
    for name in ("a.nrrd", "a.mha"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array, VOXELS)


def test_volume_without_geometry_has_no_affine(tmp_path: Path) -> None:
    bare = nrrd(without="space directions").replace(b"space origin: (1,2,3)\n", b"")
    (tmp_path / "a.nrrd").write_bytes(bare)
    volume = read_image(tmp_path / "a.nrrd")
    assert volume.affine is None
    assert volume.spacing is None
    (tmp_path / "b.nrrd").write_bytes(bare.replace(b"encoding", b"spacings: 1 2 nan\nencoding"))
    with pytest.raises(ReadError, match="spacing is 1 x 2 x nan"):
        read_image(tmp_path / "b.nrrd")
    (tmp_path / "c.nrrd").write_bytes(bare.replace(b"encoding", b"spacings: 1 2 3\nencoding"))
    assert read_image(tmp_path / "c.nrrd").spacing == (1.0, 2.0, 3.0)
    (tmp_path / "d.mha").write_bytes(meta(without="ElementSpacing"))
    assert read_image(tmp_path / "d.mha").affine is None


NAN = np.full(SHAPE, np.nan, dtype=np.float32).tobytes()
BROKEN: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "empty nrrd": ("a.nrrd", lambda: b"", "empty"),
    "text named nrrd": ("a.nrrd", lambda: b"no volume " * 50, "no NRRD file"),
    "png named nrrd": ("a.nrrd", lambda: b"\x89PNG\r\n\x1a\n" + bytes(900), "no NRRD file"),
    "nrrd magic alone": ("a.nrrd", lambda: b"NRRD0004\n", "cut off inside its header"),
    "nrrd of bytes": ("a.nrrd", lambda: b"NRRD0004\n\xff\xfe: 3\n\n", "no text"),
    "nrrd line that is no field": ("a.nrrd", lambda: b"NRRD0004\nhello\n\n", "'hello'"),
    "nrrd without sizes": ("a.nrrd", lambda: nrrd(without="sizes"), "sizes is missing"),
    "nrrd of sizes in words": ("a.nrrd", lambda: nrrd(sizes="7 six 5"), "'7 six 5'"),
    "nrrd of size zero": ("a.nrrd", lambda: nrrd(sizes="7 0 5"), "damaged"),
    "nrrd of negative size": ("a.nrrd", lambda: nrrd(sizes="7 -6 5"), "damaged"),
    "nrrd of a size of 9000 digits": ("a.nrrd", lambda: nrrd(sizes="9" * 9000 + " 6 5"), "sizes"),
    "nrrd of other axes than sizes": ("a.nrrd", lambda: nrrd(dimension="4"), "claims 4 axes"),
    "nrrd of two axes": (
        "a.nrrd",
        lambda: nrrd(dimension="2", sizes="42 5", without="space directions"),
        "2 axes",
    ),
    "nrrd of 30000 cubed": ("a.nrrd", lambda: nrrd(sizes="30000 30000 30000"), "data.max_pixels"),
    "nrrd larger than the file": ("a.nrrd", lambda: nrrd(sizes="500 500 500"), "cut off"),
    "nrrd one byte short": ("a.nrrd", lambda: nrrd(DATA[:-1]), "cut off"),
    "nrrd one byte long": ("a.nrrd", lambda: nrrd(DATA + b"x"), "longer"),
    "nrrd gzip cut": ("a.nrrd", lambda: nrrd(gzip.compress(DATA)[:-4], encoding="gzip"), "cut off"),
    "nrrd gzip claim that cannot be": (
        "a.nrrd",
        lambda: nrrd(gzip.compress(DATA), encoding="gzip", sizes="500 500 500"),
        "cut off",
    ),
    "nrrd gzip damaged": (
        "a.nrrd",
        lambda: nrrd(gzip.compress(DATA)[:-8] + bytes(8), encoding="gzip"),
        "damaged gzip",
    ),
    "nrrd in bzip2": ("a.nrrd", lambda: nrrd(encoding="bzip2"), "raw and gzip"),
    "nrrd in text": ("a.nrrd", lambda: nrrd(encoding="ascii"), "raw and gzip"),
    "nrrd without byte order": ("a.nrrd", lambda: nrrd(without="endian"), "endian"),
    "nrrd of blocks": ("a.nrrd", lambda: nrrd(type="block"), "integers and real"),
    "nrrd of NaN voxels": ("a.nrrd", lambda: nrrd(NAN, type="float"), "210 of 210 values"),
    "nrrd of NaN affine": (
        "a.nrrd",
        lambda: nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"),
        "NaN",
    ),
    "nrrd of infinite origin": ("a.nrrd", lambda: nrrd(space_origin="(inf,0,0)"), "infinite"),
    "nrrd of zero spacing": (
        "a.nrrd",
        lambda: nrrd(space_directions="(0,0,0) (0,1,0) (0,0,1)"),
        "spacing",
    ),
    "nrrd of giant spacing": (
        "a.nrrd",
        lambda: nrrd(space_directions="(1e300,0,0) (0,1,0) (0,0,1)"),
        "spacing",
    ),
    "nrrd of axes in one plane": (
        "a.nrrd",
        lambda: nrrd(space_directions="(1,0,0) (0,1,0) (1,1,0)"),
        "determinant",
    ),
    "nrrd of a field twice": ("a.nrrd", lambda: nrrd(centers="a", centerings="b"), "twice"),
    "nrrd with data elsewhere": ("a.nhdr", lambda: nrrd(data_file="../secret.raw"), "plain name"),
    "nrrd with data on a drive": ("a.nhdr", lambda: nrrd(data_file="C:\\x.raw"), "plain name"),
    "nrrd with absent data": ("a.nhdr", lambda: nrrd(data_file="a.raw"), "not beside it"),
    "nrrd with a list of data": ("a.nhdr", lambda: nrrd(data_file="LIST"), "not beside it"),
    "nhdr without data": ("a.nhdr", nrrd, "names no data file"),
    "nrrd that skips bytes": ("a.nrrd", lambda: nrrd(byte_skip="-1"), "byte skip"),
    "nrrd in furlongs": ("a.nrrd", lambda: nrrd(space_units='"furlong" "mm" "mm"'), "space units"),
    "empty mha": ("a.mha", lambda: b"", "empty"),
    "text named mha": ("a.mha", lambda: b"no volume " * 50, "no MetaImage file"),
    "png named mha": ("a.mha", lambda: b"\x89PNG\r\n\x1a\n" + bytes(900), "no MetaImage file"),
    "mha cut in its header": ("a.mha", lambda: meta()[:60], "cut off inside its header"),
    "mha without data default": ("a.mha", lambda: meta(without="ElementDataFile"), "header"),
    "mha without size": ("a.mha", lambda: meta(without="DimSize"), "DimSize is missing"),
    "mha of size zero": ("a.mha", lambda: meta(DimSize="7 0 5"), "damaged"),
    "mha of words": ("a.mha", lambda: meta(DimSize="7 six 5"), "'7 six 5'"),
    "mha of two axes": ("a.mha", lambda: meta(NDims="2", DimSize="42 5"), "2 axes"),
    "mha of no channels": ("a.mha", lambda: meta(ElementNumberOfChannels="0"), "damaged"),
    "mha of 30000 cubed": ("a.mha", lambda: meta(DimSize="30000 30000 30000"), "data.max_pixels"),
    "mha larger than the file": ("a.mha", lambda: meta(DimSize="500 500 500"), "cut off"),
    "mha one byte short": ("a.mha", lambda: meta(DATA[:-1]), "cut off"),
    "mha one byte long": ("a.mha", lambda: meta(DATA + b"x"), "longer"),
    "mha zlib cut": (
        "a.mha",
        lambda: meta(zlib.compress(DATA)[:-2], CompressedData="True"),
        "cut off",
    ),
    "mha zlib damaged": (
        "a.mha",
        lambda: meta(zlib.compress(DATA)[:-4] + bytes(4), CompressedData="True"),
        "damaged zlib",
    ),
    "mha of NaN voxels": ("a.mha", lambda: meta(NAN, ElementType="MET_FLOAT"), "210 of 210"),
    "mha of NaN spacing": ("a.mha", lambda: meta(ElementSpacing="nan 1 1"), "NaN"),
    "mha of zero spacing": ("a.mha", lambda: meta(ElementSpacing="0 1 1"), "spacing"),
    "mha of two spacings": ("a.mha", lambda: meta(ElementSpacing="1 1"), "2 numbers where 3"),
    "mha of NaN direction": ("a.mha", lambda: meta(TransformMatrix="nan " * 9), "no rotation"),
    "mha of no rotation": ("a.mha", lambda: meta(TransformMatrix="2 0 0 0 1 0 0 0 1"), "rotation"),
    "mha of axes in one plane": (
        "a.mha",
        lambda: meta(TransformMatrix="1 0 0 1 0 0 0 0 1"),
        "determinant",
    ),
    "mha in text": ("a.mha", lambda: meta(BinaryData="False"), "text"),
    "mha that skips bytes": ("a.mha", lambda: meta(HeaderSize="-1"), "HeaderSize"),
    "mha of strings": ("a.mha", lambda: meta(ElementType="MET_STRING"), "integers and real"),
    "mha of odd flag": ("a.mha", lambda: meta(CompressedData="maybe"), "'maybe'"),
    "mhd with data elsewhere": ("a.mhd", lambda: meta(ElementDataFile="/dev/zero"), "plain name"),
    "mhd with absent data": ("a.mhd", lambda: meta(ElementDataFile="a.raw"), "not beside it"),
    "mhd with a list": ("a.mhd", lambda: meta(ElementDataFile="LIST"), "not beside it"),
}


def refuse(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        read_image(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    assert len(message) < len(str(path)) + 260
    return message


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_volume_gives_a_one_line_error_with_the_reason(kind: str, tmp_path: Path) -> None:
    name, build, reason = BROKEN[kind]
    (tmp_path / name).write_bytes(build())
    assert reason in refuse(tmp_path / name)
    with pytest.raises(ReadError):
        read_mask(tmp_path / name, classes=2)


WHOLE = {
    "raw.nrrd": nrrd(),
    "packed.nrrd": nrrd(gzip.compress(DATA), encoding="gzip"),
    "raw.mha": meta(),
    "packed.mha": meta(zlib.compress(DATA), CompressedData="True"),
}


@pytest.mark.parametrize("name", WHOLE)
def test_volume_truncated_at_any_percent_is_rejected(name: str, tmp_path: Path) -> None:
    data, path = WHOLE[name], tmp_path / name
    path.write_bytes(data)
    assert read_image(path).array.shape == SHAPE
    for cut in sorted({len(data) * percent // 100 for percent in range(100)} | {len(data) - 1}):
        path.write_bytes(data[:cut])
        refuse(path)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_flipped_bits_raise_read_error_or_nothing(name: str, tmp_path: Path) -> None:
    data, path = WHOLE[name], tmp_path / name
    for position, bit in itertools.product(range(min(len(data), 320)), (0x01, 0x10, 0x80)):
        broken = bytearray(data)
        broken[position] ^= bit
        path.write_bytes(broken)
        # Some flips only change a value. Any other exception fails the test.
        with contextlib.suppress(ReadError):
            read_image(path, max_pixels=1_000_000)
