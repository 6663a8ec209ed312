"""Test that malicious archives give a one-line error and leave no files."""

import gzip
import io
import os
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from segnetr.data.download.extract import extract_archive
from segnetr.data.download.safe_names import ArchiveLimits
from segnetr.errors import ArchiveError, WriteError

IMAGE = random.Random(0).randbytes(3000)


def pack_zip(path: Path, entries: dict[str, bytes], *, compression: int = 8) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = compression
            archive.writestr(info, data)
    return path


def pack_tar(path: Path, entries: dict[str, bytes], **facts: object) -> Path:
    mode = "w:gz" if path.name.endswith("gz") else "w"
    with tarfile.open(path, mode, format=tarfile.GNU_FORMAT) as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in facts.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return path


def unpack(path: Path, folder: Path, limits: ArchiveLimits | None = None):
    folder.mkdir()
    with path.open("rb") as file:
        return extract_archive(file, folder, path=path, limits=limits or ArchiveLimits())


def refuse(path: Path, tmp_path: Path, limits: ArchiveLimits | None = None) -> str:
    """Return the one-line error for an archive and check that no file was written outside."""
    before = set(tmp_path.rglob("*"))
    with pytest.raises(ArchiveError) as caught:
        unpack(path, tmp_path / "out", limits)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < len(str(path)) + 400
    assert caught.value.exit_code == 4
    outside = {item for item in tmp_path.rglob("*") if tmp_path / "out" not in item.parents}
    assert outside - before <= {tmp_path / "out"}
    return message


PACKERS = pytest.mark.parametrize(
    ("pack", "file"),
    [(pack_zip, "a.zip"), (pack_tar, "a.tar"), (pack_tar, "a.tar.gz")],
    ids=["zip", "tar", "tar.gz"],
)


@PACKERS
def test_valid_archive_is_unpacked_byte_for_byte(pack: Callable, file: str, tmp_path: Path):
    entries = {"set/a.png": IMAGE, "./set/deep/b (1).png": b"b", "set/empty": b"", "ä.txt": b"c"}
    found = unpack(pack(tmp_path / file, entries), tmp_path / "out")
    there = {
        item.relative_to(tmp_path / "out").as_posix(): item.read_bytes()
        for item in (tmp_path / "out").rglob("*")
        if item.is_file()
    }
    assert there == {name.removeprefix("./"): data for name, data in entries.items()}
    assert (found.files, found.bytes, found.left_out) == (4, 3002, 0)


@PACKERS
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../out.png", "points out of its folder"),
        ("set/../../out.png", "points out of its folder"),
        ("/etc/passwd", "is an absolute path"),
        ("//server/share", "is an absolute path"),
        ("C:/windows/a", "backslash or a colon"),
        ("..\\..\\a.png", "backslash or a colon"),
        ("a.png:stream", "backslash or a colon"),
        ("a\x1b[2Jb.png", "U+001B"),
        ("a\nb.png", "U+000A"),
        ("invoice\u202egnp.exe", "U+202E"),
        ("a\u200bb.png", "U+200B"),
        ("set/aux.png", "device of Windows"),
        ("set./a.png", "ends with a dot"),
        ("a" * 250, "too long"),
        ("/".join("a" * 40), "too long"),
        ("d/" * 3 + "ü" * 125, "too long"),
    ],
)
def test_name_outside_the_target_folder_is_rejected(
    pack: Callable, file: str, name: str, message: str, tmp_path: Path
):
    path = pack(tmp_path / file, {"set/good.png": b"1", name: b"2"})
    assert message in refuse(path, tmp_path)


@PACKERS
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b.png", "a/B.png"], "upper and lower case"),
        (["Set/a.png", "set/b.png"], "upper and lower case"),
        (["stra\u00dfe.png", "STRASSE.png"], "upper and lower case"),
        (["\u00e9.png", "e\u0301.png"], "upper and lower case or accents"),
        (["a", "a/b.png"], "a file and a folder at once"),
        (["a/b.png", "a"], "a file and a folder at once"),
        (["a//b.png", "a/./b.png"], "in it twice"),
    ],
)
def test_conflicting_names_are_rejected(
    pack: Callable, file: str, names: list[str], message: str, tmp_path: Path
):
    path = pack(tmp_path / file, dict.fromkeys(names, b"x"))
    assert message in refuse(path, tmp_path)


def test_duplicate_name_is_rejected(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a.png"))
    assert "'a.png' in it is in it twice" in refuse(tmp_path / "a.tar", tmp_path)


def test_name_with_a_nul_character_is_rejected(tmp_path):
    path = pack_zip(tmp_path / "a.zip", {"good.pngXevil": b"1"}, compression=0)
    path.write_bytes(path.read_bytes().replace(b"good.pngXevil", b"good.png\0evil"))
    assert "U+0000" in refuse(path, tmp_path)


def test_name_that_is_not_utf8_is_rejected(tmp_path):
    path = pack_tar(tmp_path / "a.tar", {"aXb.png": b"1"})
    data = bytearray(path.read_bytes())
    data[1] = 0xFF
    data[148:156] = b"%06o\0 " % (256 + sum(data[:148]) + sum(data[156:512]))
    path.write_bytes(data)
    assert "U+DCFF" in refuse(path, tmp_path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "neither file nor folder"),
    ],
)
@pytest.mark.parametrize("target", ["../../outside", "good.png"])
def test_link_or_device_in_a_tar_is_rejected(
    kind: bytes, message: str, target: str, tmp_path: Path
):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("good.png"))
        info = tarfile.TarInfo("door")
        info.type, info.linkname = kind, target
        archive.addfile(info)
        archive.addfile(tarfile.TarInfo("door/evil.png"))
    assert f"'door' in it is {message}" in refuse(tmp_path / "a.tar", tmp_path)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (stat.S_IFLNK | 0o777, "is a link"),
        (stat.S_IFCHR | 0o666, "is a device or a pipe"),
        (stat.S_IFIFO | 0o666, "is a device or a pipe"),
        (stat.S_IFDIR | 0o755, "a file and a folder at once"),
        (stat.S_IFREG | 0o4755, "run as another user"),
    ],
)
def test_link_or_device_in_a_zip_is_rejected(mode: int, message: str, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("door")
        info.external_attr = mode << 16
        archive.writestr(info, "/etc")
    assert message in refuse(tmp_path / "a.zip", tmp_path)


def test_setuid_file_is_rejected(tmp_path):
    path = pack_tar(tmp_path / "a.tar", {"tool": b"1"}, mode=0o4755)
    assert "run as another user" in refuse(path, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_modes_and_owners_of_the_archive_are_ignored(tmp_path):
    path = pack_tar(tmp_path / "a.tar", {"set/tool": b"1"}, mode=0o777, uid=4711, mtime=1)
    unpack(path, tmp_path / "out")
    status = (tmp_path / "out/set/tool").stat()
    assert not status.st_mode & 0o111
    assert status.st_uid == os.getuid()


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_error_for_an_encrypted_zip_says_how_to_continue(flag: int, tmp_path: Path):
    path = pack_zip(tmp_path / "a.zip", {"a.png": IMAGE})
    data = bytearray(path.read_bytes())
    table = data.rindex(b"PK\1\2")
    data[table + 8 : table + 10] = struct.pack("<H", flag)
    path.write_bytes(data)
    message = refuse(path, tmp_path)
    assert "encrypted" in message
    assert "--source" in message


@pytest.mark.parametrize("method", [9, 12, 14, 93])
def test_error_for_an_unknown_compression_method_says_how_to_continue(method: int, tmp_path: Path):
    path = pack_zip(tmp_path / "a.zip", {"a.png": IMAGE})
    data = bytearray(path.read_bytes())
    table = data.rindex(b"PK\1\2")
    data[table + 10 : table + 12] = struct.pack("<H", method)
    path.write_bytes(data)
    assert f"method {method}" in refuse(path, tmp_path)


@PACKERS
def test_bomb_is_stopped_by_its_unpacked_size(pack: Callable, file: str, tmp_path: Path):
    path = pack(tmp_path / file, {f"{number}.bin": bytes(1 << 20) for number in range(4)})
    if file == "a.tar":  # a plain tar is not compressed
        limits, message = ArchiveLimits(total_bytes=2 << 20), "--max-gib"
    else:
        limits, message = ArchiveLimits(ratio=100, ratio_floor=1 << 20), "archive bomb"
    assert message in refuse(path, tmp_path, limits)
    written = sum(item.stat().st_size for item in (tmp_path / "out").rglob("*") if item.is_file())
    assert written <= 3 << 20


def test_bomb_is_stopped_with_the_default_limits(tmp_path):
    # Measured: 200 MB of zeros take 195 kB. 34 MiB are enough to exceed the ratio floor.
    path = pack_zip(tmp_path / "a.zip", {"a.bin": bytes(34 << 20)})
    assert path.stat().st_size < 50_000
    assert "--max-ratio" in refuse(path, tmp_path)


@PACKERS
def test_too_many_files_are_rejected(pack: Callable, file: str, tmp_path: Path):
    path = pack(tmp_path / file, {f"d{number}/f": b"" for number in range(30)})
    assert "more than 20 files and folders" in refuse(path, tmp_path, ArchiveLimits(files=20))


def test_oversized_table_of_contents_is_rejected(tmp_path):
    path = pack_zip(tmp_path / "a.zip", {f"{'n' * 200}{number}": b"" for number in range(9000)})
    # 9000 entries of 250 bytes exceed the 2 MiB that are always allowed.
    assert "table of contents" in refuse(path, tmp_path, ArchiveLimits(files=10))


def test_header_that_claims_gigabytes_is_rejected_without_reading_it(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(20_000))
    assert "longer than 1 MiB" in refuse(path, tmp_path)


def test_long_chain_of_headers_is_rejected(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2
    link = info.tobuf(tarfile.GNU_FORMAT) + b"a\0" + bytes(510)
    (tmp_path / "a.tar").write_bytes(link * 3000)
    assert "damaged or changed" in refuse(tmp_path / "a.tar", tmp_path)


def overlap(names: list[bytes], *, distance: int) -> bytes:
    """Return a zip whose entries share one compressed kernel, as in Fifield's zip bomb."""
    core = zipfile.zlib.compressobj(9, 8, -15)
    data = core.compress(bytes(100_000)) + core.flush()
    crc = zipfile.zlib.crc32(bytes(100_000))
    out, table = b"", b""
    for name in names:
        facts = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0, crc, len(data), 100_000, len(name), 0)
        offset = len(out) if distance else 0
        if distance or not out:
            out += b"PK\3\4" + facts + name + data[:distance]
        table += b"PK\1\2" + struct.pack("<H", 20) + facts
        table += struct.pack("<HHHII", 0, 0, 0, 0, offset) + name
    out += data
    end = struct.pack("<HHHHIIH", 0, 0, len(names), len(names), len(table), len(out), 0)
    return out + table + b"PK\5\6" + end


@pytest.mark.parametrize("distance", [0, 8])
def test_overlapping_entries_are_rejected(distance: int, tmp_path: Path):
    path = tmp_path / "a.zip"
    path.write_bytes(overlap([b"a", b"b"], distance=distance))
    assert "overlaps" in refuse(path, tmp_path)


def test_nested_archive_is_not_unpacked(tmp_path):
    inner = pack_zip(tmp_path / "inner.zip", {"../evil": b"1"}).read_bytes()
    found = unpack(pack_zip(tmp_path / "a.zip", {"inner.zip": inner}), tmp_path / "out")
    assert found.files == 1
    assert (tmp_path / "out/inner.zip").read_bytes() == inner


def test_sparse_file_is_rejected(tmp_path):
    path = pack_tar(tmp_path / "a.tar", {"a.bin": bytes(512)}, type=tarfile.GNUTYPE_SPARSE)
    assert "neither file nor folder" in refuse(path, tmp_path)


@PACKERS
def test_archive_truncated_at_any_byte_is_rejected(pack: Callable, file: str, tmp_path: Path):
    whole = pack(tmp_path / file, {f"{n}.png": IMAGE[: 700 * n] for n in range(1, 4)})
    data = whole.read_bytes()
    # A tar is padded with zeros after its end marker, and these may be missing.
    last = 3 * 512 + 1024 + 1536 + 2560 + 511 if file == "a.tar" else len(data) - 1
    for number, end in enumerate([*range(0, last, last // 40), last]):
        path = tmp_path / f"cut{number}-{file}"
        path.write_bytes(data[:end])
        folder = tmp_path / f"out{number}"
        with pytest.raises(ArchiveError):
            unpack(path, folder)


@PACKERS
def test_flipped_bytes_are_detected_or_harmless(pack: Callable, file: str, tmp_path: Path):
    """Check that no flipped byte gives a traceback or silently changes a compressed image."""
    whole = pack(tmp_path / file, {"set/a.png": IMAGE, "set/b.png": IMAGE[:100]})
    data, chance = whole.read_bytes(), random.Random(1)
    for number in range(150):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 1, 3])):
            damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path = tmp_path / f"damaged{number}-{file}"
        path.write_bytes(damaged)
        folder = tmp_path / f"out{number}"
        try:
            unpack(path, folder)
        except ArchiveError:
            continue
        if file != "a.tar":  # an uncompressed tar has no checksum of its data
            found = {item.read_bytes() for item in folder.rglob("*") if item.is_file()}
            assert found <= {IMAGE, IMAGE[:100]}


def test_wrong_crc_is_rejected(tmp_path):
    path = pack_zip(tmp_path / "a.zip", {"a.png": IMAGE}, compression=0)
    path.write_bytes(path.read_bytes().replace(IMAGE[:50], IMAGE[1:51]))
    assert "CRC" in refuse(path, tmp_path)
    data = gzip.compress((pack_tar(tmp_path / "b.tar", {"b.png": IMAGE})).read_bytes())
    (tmp_path / "b.tar.gz").write_bytes(data[:-8] + bytes(4) + data[-4:])
    (tmp_path / "out").rename(tmp_path / "out1")
    assert "CRC" in refuse(tmp_path / "b.tar.gz", tmp_path)


def test_damaged_header_in_the_middle_of_a_tar_is_an_error(tmp_path):
    path = pack_tar(tmp_path / "a.tar", {"a.png": b"1" * 512, "b.png": b"2" * 512})
    data = bytearray(path.read_bytes())
    data[1024 + 150] ^= 1  # checksum of the second header
    path.write_bytes(data)
    assert "a header in it is broken" in refuse(path, tmp_path)


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"Rar!\x1a\x07\x01\0", "unrar x a.zip"),
        (b"7z\xbc\xaf\x27\x1c", "7z x a.zip"),
        (b"BZh9", "tar xf a.zip"),
        (b"<!DOCTYPE html>", "no .zip, .tar or .tar.gz"),
        (b"", "is empty"),
    ],
)
def test_error_for_other_formats_asks_to_unpack_them_first(
    start: bytes, message: str, tmp_path: Path
):
    path = tmp_path / "a.zip"
    path.write_bytes(start + bytes(600) * bool(start))
    assert message in refuse(path, tmp_path)


def test_archive_without_files_is_rejected(tmp_path):
    assert "holds no file" in refuse(pack_zip(tmp_path / "a.zip", {"set/": b""}), tmp_path)


@PACKERS
def test_metadata_files_of_operating_systems_are_skipped(pack: Callable, file: str, tmp_path: Path):
    names = ["set/a.png", "set/._a.png", "__MACOSX/set/._a.png", "set/.DS_Store", "._set"]
    found = unpack(pack(tmp_path / file, dict.fromkeys(names, b"x")), tmp_path / "out")
    assert (found.files, found.left_out) == (1, 4)
    assert [item.name for item in (tmp_path / "out").rglob("*") if item.is_file()] == ["a.png"]


def test_full_disk_gives_a_one_line_error(tmp_path, monkeypatch):
    path = pack_zip(tmp_path / "a.zip", {"a.png": IMAGE})

    def refuse_bytes(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("segnetr.storage.disk_errors.os.write", refuse_bytes)
    with pytest.raises(WriteError, match=r"a\.png: No space left on device; free space"):
        unpack(path, tmp_path / "out")


def test_too_little_disk_space_is_reported_before_unpacking(tmp_path, monkeypatch):
    path = pack_zip(tmp_path / "a.zip", {"a.png": IMAGE})
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("segnetr.storage.disk_errors.shutil.disk_usage", lambda _: usage)
    with pytest.raises(WriteError, match=r"has 1000 B free"):
        unpack(path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_progress_ends_at_the_total(tmp_path):
    seen = []
    path = pack_zip(tmp_path / "a.zip", {f"{n}.png": IMAGE for n in range(3)})
    (tmp_path / "out").mkdir()
    with path.open("rb") as file:
        extract_archive(
            file,
            tmp_path / "out",
            path=path,
            limits=ArchiveLimits(),
            report=lambda done, total: seen.append((done, total)),
        )
    assert len(seen) == 3
    assert all(0 < done <= total == path.stat().st_size for done, total in seen)
