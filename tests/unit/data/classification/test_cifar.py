"""CIFAR is read from its published pickles, and no code in a pickle is run."""

import contextlib
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from segnetr.data.classification.cifar import CIFAR_10, CIFAR_100, read_cifar
from segnetr.data.classification.pickle_arrays import read_plain_pickle
from segnetr.errors import ReadError, UsageError


def pickle_text(value: str) -> bytes:
    return b"U" + bytes([len(value)]) + value.encode()


def official_batch(data: np.ndarray, labels: list[int], key: str) -> bytes:
    """A batch as Python 2's cPickle wrote it: protocol 2, byte strings, numpy's old names."""
    raw = data.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87Rq\x03"
        + b"(K\x01M" + struct.pack("<H", data.shape[0]) + b"M" + struct.pack("<H", data.shape[1])
        + b"\x86cnumpy\ndtype\nq\x04U\x02u1K\x00K\x01\x87Rq\x05(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        + b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    numbers = b"]q\x06(" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    content = (
        pickle_text("data")
        + array
        + pickle_text(key)
        + numbers
        + pickle_text("batch_label")
        + pickle_text("one")
    )
    return b"\x80\x02}q\x00(" + content + b"u."


def draw(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)


def write_cifar10(root: Path, *, labels: tuple[int, ...] = (0, 1, 2)) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        data = draw(len(labels), number)
        (folder / name).write_bytes(official_batch(data, list(labels), "labels"))
    names = ["airplane", "automobile", "bird"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))
    return folder


@pytest.mark.parametrize("inside", [True, False])
def test_cifar_10_is_read_from_its_folder_or_the_parent_folder(tmp_path, inside):
    folder = write_cifar10(tmp_path)
    opened = read_cifar(folder if inside else tmp_path, layout=CIFAR_10)
    assert opened.classes == ("airplane", "automobile", "bird")
    assert [case.split for case in opened.cases] == ["train"] * 15 + ["test"] * 3
    assert [case.labels for case in opened.cases[:4]] == [(0,), (1,), (2,), (0,)]
    assert len({case.case_id for case in opened.cases}) == 18


def test_color_planes_become_channels(tmp_path):
    folder = write_cifar10(tmp_path)
    opened = read_cifar(folder, layout=CIFAR_10)
    row = draw(3, 0)[1]
    image = opened.cases[1].image
    assert image.shape == (32, 32, 3)
    assert image[0, 5].tolist() == [row[5], row[1024 + 5], row[2048 + 5]]
    assert image[7, 0, 0] == row[7 * 32]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_cifar_100_saved_by_python_3_is_read(tmp_path, protocol):
    for name, count in (("train", 4), ("test", 2)):
        content = {
            b"data": draw(count, 3),
            b"fine_labels": [i % 2 for i in range(count)],
            b"coarse_labels": [0] * count,
        }
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=protocol))
    meta = {"fine_label_names": ["apple", "bear"], "coarse_label_names": ["thing"]}
    (tmp_path / "meta").write_bytes(pickle.dumps(meta, protocol=protocol))
    opened = read_cifar(tmp_path, layout=CIFAR_100)
    assert opened.classes == ("apple", "bear")
    assert [case.labels[0] for case in opened.cases] == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(opened.cases[3].image[..., 2].ravel(), draw(4, 3)[3][2048:])


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_rejected_and_never_run(tmp_path, protocol):
    trace, file = tmp_path / "trace", tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps({"data": Hostile(trace)}, protocol=protocol))
    with pytest.raises(ReadError, match="none of its code was run") as caught:
        read_plain_pickle(file)
    assert "\n" not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
        b"\x80\x02(U\x02idios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x02cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R.",
        b"\x80\x02}U\x01ab.",
        b"\x80\x02U\x01aU\x01b\x85R.",
        b"\x80\x02cnumpy\nndarray\nU\x01b\x85R.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_every_instruction_beyond_plain_data_is_rejected(tmp_path, code):
    file = tmp_path / "batch"
    file.write_bytes(code)
    with pytest.raises(ReadError, match="none of its code was run"):
        read_plain_pickle(file)


def test_truncated_file_is_rejected_in_one_line(tmp_path):
    whole = official_batch(draw(2, 0), [0, 1], "labels")
    file = tmp_path / "data_batch_1"
    for length in [0, 1, 2, 5, 40, 70, 120, 140, 180, 3000, len(whole) - 30, len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(ReadError, match="truncated or not a pickle") as caught:
            read_plain_pickle(file)
        assert "\n" not in str(caught.value)


def test_changed_byte_gives_a_value_or_a_read_error(tmp_path):
    whole = bytearray(official_batch(draw(1, 0), [1], "labels"))
    positions = [*range(0, 175, 2), *range(len(whole) - 60, len(whole), 2)]
    file = tmp_path / "batch"
    for position in positions:
        for value in (0x28, 0xFF):
            damaged = bytearray(whole)
            damaged[position] = value
            file.write_bytes(damaged)
            with contextlib.suppress(ReadError):  # and nothing else
                read_plain_pickle(file)


def test_array_of_another_type_is_rejected(tmp_path):
    file = tmp_path / "batch"
    file.write_bytes(pickle.dumps({"data": np.zeros((2, 3072), np.float32)}, protocol=2))
    with pytest.raises(ReadError, match="not uint8"):
        read_plain_pickle(file)


def test_memo_index_that_would_allocate_gigabytes_is_rejected(tmp_path):
    file = tmp_path / "batch"
    file.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(ReadError, match="none of its code was run"):
        read_plain_pickle(file)


def test_label_out_of_range_names_the_image(tmp_path):
    write_cifar10(tmp_path, labels=(0, 9, 2))
    with pytest.raises(ReadError, match="image 1 has the label 9, not 0 to 2"):
        read_cifar(tmp_path, layout=CIFAR_10)


def test_missing_batch_is_named(tmp_path):
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_3").unlink()
    with pytest.raises(UsageError, match=r"data_batch_3 missing.*kriz"):
        read_cifar(tmp_path, layout=CIFAR_10)


def test_batch_of_another_shape_is_rejected(tmp_path):
    folder = write_cifar10(tmp_path)
    content = {"data": np.zeros((2, 100), np.uint8), "labels": [0, 1]}
    (folder / "data_batch_2").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ReadError, match="3072 bytes per image"):
        read_cifar(tmp_path, layout=CIFAR_10)
