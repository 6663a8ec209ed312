"""Classification datasets from class folders, MedMNIST files and label tables."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.config.schema.classification import ClassificationDataConfig, TableConfig
from segnetr.data.classification.case import count_labels
from segnetr.data.classification.image_folder import read_image_folder
from segnetr.data.classification.label_table import read_label_table
from segnetr.data.classification.medmnist import read_medmnist
from segnetr.data.classification.open import open_classification_set
from segnetr.data.splits.split import make_split
from segnetr.errors import DataError, ReadError, SegNetrError, UsageError


def put(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)
    return path


def open_folder(root: Path, **settings):
    return open_classification_set(
        ClassificationDataConfig(dataset="imagefolder", data_dir=root, **settings)
    )


def write_npz(path: Path, *, shape=(8, 8), labels=2, counts=(6, 4, 4), **changed) -> Path:
    generator = np.random.default_rng(0)
    arrays = {}
    for name, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{name}_images"] = generator.integers(0, 256, (count, *shape)).astype(np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count) % labels).astype(np.uint8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{**arrays, **changed})
    return path


def write_table(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


# --- folders ---------------------------------------------------------------------------------


def test_class_folders_give_sorted_classes_and_path_ids(tmp_path):
    for name in ("dog/b.png", "dog/a.JPEG", "cat/deep/c.png", "cat/.hidden.png"):
        put(tmp_path / name)
    opened = open_folder(tmp_path)
    assert opened.classes == ("cat", "dog")
    assert [c.case_id for c in opened.cases] == ["cat/deep/c.png", "dog/a.JPEG", "dog/b.png"]
    assert [c.labels for c in opened.cases] == [(0,), (1,), (1,)]
    assert {c.split for c in opened.cases} == {None}


def test_split_folders_are_official_and_may_lack_a_class(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/a/1.png", "test/b/1.png"):
        put(tmp_path / name)
    opened = open_folder(tmp_path)
    assert [(c.split, c.labels) for c in opened.cases] == [
        ("test", (1,)), ("train", (0,)), ("train", (1,)), ("validation", (0,)),
    ]  # fmt: skip
    assert make_split(opened.cases, validation_share=0.2, test_share=0.2, seed=0).origin == (
        "official"
    )


def test_split_folder_without_class_folders_is_refused(tmp_path):
    for name in ("train/a/1.png", "train/b/1.png", "val/1.png"):
        put(tmp_path / name)
    with pytest.raises(UsageError, match="no class folders"):
        open_folder(tmp_path)


def test_empty_class_folder_and_single_class_are_refused(tmp_path):
    put(tmp_path / "one" / "a" / "1.png")
    with pytest.raises(DataError, match="all cases have the class 'a'"):
        open_folder(tmp_path / "one")
    (tmp_path / "one" / "b").mkdir()
    with pytest.raises(DataError, match="the class 'b' contains no image"):
        open_folder(tmp_path / "one")


def test_error_for_a_missing_folder_names_the_expected_one(tmp_path):
    with pytest.raises(UsageError, match="class folders"):
        open_classification_set(ClassificationDataConfig(dataset="imagefolder"))
    with pytest.raises(UsageError, match="nowhere"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no class folders"):
        read_image_folder(tmp_path, in_channels=None)


# --- MedMNIST --------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "channels"), [((8, 8), 1), ((8, 8, 3), 3), ((9, 7, 1), 1)])
def test_gray_and_color_files_are_read_with_their_splits(tmp_path, shape, channels):
    path = write_npz(tmp_path / "pneumoniamnist_64.npz", shape=shape)
    opened = read_medmnist(path)
    assert opened.classes == ("normal", "pneumonia")
    assert opened.in_channels == channels
    assert [c.split for c in opened.cases] == ["train"] * 6 + ["validation"] * 4 + ["test"] * 4
    assert opened.cases[1].image.shape == (*shape[:2], channels)
    assert opened.cases[1].labels == (1,)


def test_multi_label_files_are_read(tmp_path):
    labels = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 1]], np.uint8)
    changed = {f"{part}_labels": labels for part in ("train", "val", "test")}
    opened = read_medmnist(write_npz(tmp_path / "x.npz", counts=(4, 4, 4), **changed))
    assert opened.kind == "multi"
    assert [c.labels for c in opened.cases[:4]] == [(), (0, 2), (1,), (0, 1, 2)]
    assert opened.classes == ("class 0", "class 1", "class 2")


def test_one_of_several_files_is_chosen_by_name(tmp_path):
    write_npz(tmp_path / "a.npz")
    write_npz(tmp_path / "b.npz", labels=3)
    with pytest.raises(UsageError, match=r"data\.subset=NAME: a, b"):
        read_medmnist(tmp_path)
    assert len(read_medmnist(tmp_path, subset="b").classes) == 3
    with pytest.raises(UsageError, match=r"no c\.npz"):
        read_medmnist(tmp_path, subset="c")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"val_labels": np.array([[0], [2], [0], [1]], np.uint8)}, "label 2; expected 0 to 1"),
        ({"val_labels": np.array([[0], [-1], [0], [1]], np.int8)}, "label -1"),
        ({"val_labels": np.zeros((3, 1), np.uint8)}, "val_labels"),
        ({"train_images": np.zeros((6, 8, 8, 8), np.uint8)}, "volumes are not supported"),
        ({"train_images": np.zeros((6, 8, 8), np.float32)}, "uint8"),
        ({"train_labels": np.array([{}] * 6, dtype=object)}, "pickled objects"),
    ],
)
def test_invalid_content_is_a_one_line_error(tmp_path, changed, words):
    path = write_npz(tmp_path / "breastmnist.npz", **changed)
    with pytest.raises(ReadError, match=words) as caught:
        read_medmnist(path)
    assert "\n" not in str(caught.value)


def test_damaged_and_unrelated_files_are_one_line_errors(tmp_path):
    path = write_npz(tmp_path / "x.npz")
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match=r"damaged or not an \.npz file"):
            read_medmnist(path)
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ReadError, match="train_images"):
        read_medmnist(path)


def test_class_without_a_case_is_refused(tmp_path):
    zeros = np.zeros((4, 1), int)
    labels = {"train_labels": np.full((6, 1), 2), "val_labels": zeros, "test_labels": zeros}
    path = write_npz(tmp_path / "x.npz", **labels)
    with pytest.raises(DataError, match="no case of the class 'class 1'"):
        open_classification_set(ClassificationDataConfig(dataset="medmnist", data_dir=path))


# --- tables ----------------------------------------------------------------------------------


def test_isic_2017_tables_are_official_splits_and_no_label_means_nevus(tmp_path):
    rows = {"Training": ["a", "b", "c"], "Validation": ["d"], "Test_v2": ["e"]}
    held = {"a": (1, 0), "b": (0, 1)}
    for part, names in rows.items():
        table = [
            {
                "image_id": name,
                "melanoma": float(held.get(name, (0, 0))[0]),
                "seborrheic_keratosis": float(held.get(name, (0, 0))[1]),
            }
            for name in names
        ]
        write_table(tmp_path / f"ISIC-2017_{part}_Part3_GroundTruth.csv", table)
        for name in names:
            put(tmp_path / f"ISIC-2017_{part}_Data" / f"{name}.jpg")
            put(tmp_path / f"ISIC-2017_{part}_Data" / f"{name}_superpixels.png")
    opened = read_label_table(tmp_path, TableConfig(), in_channels=None)
    assert opened.classes == ("nevus", "melanoma", "seborrheic_keratosis")
    assert [(c.case_id, c.labels[0], c.split) for c in opened.cases] == [
        ("a", 1, "train"), ("b", 2, "train"), ("c", 0, "train"),
        ("d", 0, "validation"), ("e", 0, "test"),
    ]  # fmt: skip


def ham(folder: Path, lesions: dict[str, str]) -> None:
    words = ["mel", "nv"]
    write_table(
        folder / "HAM10000_metadata.csv",
        [
            {"lesion_id": lesion, "image_id": name, "dx": words[len(lesion) % 2], "age": "45"}
            for name, lesion in lesions.items()
        ],
    )
    one_hot = [
        {"image": name, "MEL": float(len(lesion) % 2 == 0), "NV": float(len(lesion) % 2)}
        for name, lesion in lesions.items()
    ]
    write_table(folder / "ISIC2018_Task3_Training_GroundTruth.csv", one_hot)
    for name in lesions:
        put(folder / "HAM10000_images_part_1" / f"{name}.jpg")


@pytest.mark.parametrize(
    "file", ["HAM10000_metadata.csv", "ISIC2018_Task3_Training_GroundTruth.csv"]
)
def test_no_lesion_is_in_two_splits(tmp_path, file):
    lesions = {f"ISIC_{i:02}": f"H{'x' * (i // 3 % 2)}{i // 3}" for i in range(30)}
    ham(tmp_path, lesions)
    opened = read_label_table(tmp_path, TableConfig(file=file), in_channels=None)
    assert len(opened.cases) == 30
    split = make_split(
        opened.cases, validation_share=0.2, test_share=0.2, seed=1, strata=opened.strata
    )
    parts = [{lesions[i] for i in split.ids(name)} for name in ("train", "validation", "test")]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_one_of_two_tables_must_be_chosen(tmp_path):
    ham(tmp_path, {"a": "H1", "b": "H12"})
    with pytest.raises(UsageError, match=r"data\.table\.file"):
        read_label_table(tmp_path, TableConfig(), in_channels=None)


def test_multi_label_rows_require_the_setting(tmp_path):
    rows = [{"file": "a.png", "x": 1, "y": 1}, {"file": "b.png", "x": 0, "y": 0}]
    write_table(tmp_path / "t.csv", rows)
    put(tmp_path / "a.png")
    put(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"a\.png has 2 labels.*multi_label"):
        read_label_table(tmp_path, TableConfig(), in_channels=None)
    opened = read_label_table(tmp_path, TableConfig(multi_label=True), in_channels=1)
    assert [c.labels for c in opened.cases] == [(0, 1), ()]
    assert opened.in_channels == 1


def test_missing_and_duplicate_images_are_issues(tmp_path):
    rows = [{"image": name, "label": label} for name, label in (("a", "x"), ("b", "y"), ("c", "x"))]
    write_table(tmp_path / "t.csv", rows)
    put(tmp_path / "one" / "a.png")
    put(tmp_path / "one" / "b.png")
    put(tmp_path / "two" / "b.jpg")
    opened = read_label_table(tmp_path, TableConfig(), in_channels=None)
    assert [c.case_id for c in opened.cases] == ["a"]
    assert [(f.case_id, f.kind) for f in opened.issues] == [
        ("b", "image-twice"),
        ("c", "image-missing"),
    ]


@pytest.mark.parametrize(
    ("rows", "settings", "words"),
    [
        ([{"image": "a", "label": "x"}, {"image": "a", "label": "y"}], {}, "is listed twice"),
        ([{"image": "a", "label": ""}], {}, "a has no label"),
        ([{"name": "a", "label": "x"}], {}, "id_column"),
        ([{"image": "a", "age": "45"}], {}, "label_columns"),
        ([{"image": "a", "label": "x"}], {"label_columns": ("lable",)}, "no column 'lable'"),
        ([{"image": "a", "label": "x"}], {"group_column": "lesion"}, "'lesion'"),
        ([{"image": "a", "x": "2", "y": "0"}], {"label_columns": ("x", "y")}, "x is '2'"),
        ([{"image": "a", "label": "x"}], {"file": "u.csv"}, r"u\.csv"),
        ([{"image": "a", "label": "x"}], {"images": "where"}, "where"),
    ],
)
def test_invalid_table_is_a_one_line_error(tmp_path, rows, settings, words):
    write_table(tmp_path / "t.csv", rows)
    put(tmp_path / "a.png")
    with pytest.raises(SegNetrError, match=words) as caught:
        read_label_table(tmp_path, TableConfig(**settings), in_channels=None)
    assert "\n" not in str(caught.value)


def test_unreadable_table_is_a_read_error(tmp_path):
    put(tmp_path / "a.png")
    for content in (b"", b"image,label\n", b"image,label\na\n", b"\xff\xfe\x00", b"a,a\n1,2\n"):
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(ReadError):
            read_label_table(tmp_path, TableConfig(), in_channels=None)


# --- real excerpts ---------------------------------------------------------------------------


@pytest.mark.data
def test_real_excerpts_of_all_formats_are_read(real_data):
    pneumonia = open_classification_set(
        ClassificationDataConfig(
            dataset="medmnist", data_dir=real_data / "medmnist", subset="pneumoniamnist"
        )
    )
    assert count_labels(pneumonia.cases, classes=2).tolist() == [1583, 4273]
    derm = open_folder(real_data / "imagefolder" / "derm224")
    parts = [case.split for case in derm.cases]
    assert [parts.count(name) for name in ("train", "validation", "test")] == [30, 5, 9]
    isic = read_label_table(real_data / "isic2017", TableConfig(), in_channels=None)
    assert (len(isic.cases), len(isic.issues)) == (14, 0)
    table = TableConfig(file="HAM10000_metadata.csv")
    skin = read_label_table(real_data / "ham10000", table, in_channels=None)
    assert (len(skin.cases), len({c.patient_id for c in skin.cases})) == (68, 63)
