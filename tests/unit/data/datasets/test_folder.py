"""Datasets in a user's folder: patterns, tables of pairs, descriptions and their errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.datasets.folder.dataset import describe_folder, read_folder
from segnetr.data.datasets.folder.pair_table import read_pair_table
from segnetr.data.datasets.folder.patterns import PathPatterns, read_patterns
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.validation.audit import check_cases, check_pairs
from segnetr.errors import DataError, UsageError
from segnetr.workflows.datasets.check import check_dataset
from segnetr.workflows.datasets.loading import open_dataset

PLAIN = "name: mine\nclasses: [background, cell]\nchannels: 1\n"
BY_PATTERNS = "images: images/{id}.*\nmasks: masks/{id}.*\n"


def save(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def mask(*values: int) -> np.ndarray:
    """Return a mask with a band of rows for each value, and 0 below."""
    rows = np.zeros((24, 30))
    for row, value in enumerate(values):
        rows[4 * row : 4 * row + 4] = value
    return rows


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def make_folder(root: Path, masks: dict[str, np.ndarray], *, text: str = PLAIN) -> Path:
    for number, (name, values) in enumerate(masks.items()):  # no two images are equal
        save(root / "images" / f"{name}.png", np.full((24, 30), 90 + number))
        save(root / "masks" / f"{name}.png", values)
    (root / "dataset.yaml").write_text(text + BY_PATTERNS)
    return root


def list_masks(root: Path, images: str, masks: str) -> dict[str, list[str]]:
    """Return the masks of each case, relative to the root."""
    cases = read_patterns(root, PathPatterns(images=images, masks=masks))
    return {c.case_id: [f.relative_to(root).as_posix() for f in c.mask_files] for c in cases}


@pytest.mark.parametrize(
    ("images", "masks", "files"),
    [
        ("images/{id}.*", "masks/{id}.*", ["images/a.b.JPG", "masks/a.b.png"]),
        ("{id}.*", "{id}_mask.*", ["a.b.png", "a.b_mask.png"]),
        ("im/{id}.nii.gz", "gt/{id}_seg.*", ["im/a.b.nii.gz", "gt/a.b_seg.nii.gz"]),
        (
            "x/{id}/i/{id}.*",
            "x/{id}/m/*.*",
            ["x/a.b/i/a.b.png", "x/a.b/m/z1.png", "x/a.b/m/z2.png"],
        ),
        ("{id}.*", "{id}_mask*.*", ["a.b.png", "a.b_mask.png", "a.b_mask_1.png"]),
    ],
)
def test_pattern_pairs_images_with_their_masks(tmp_path, images, masks, files):
    touch(tmp_path, *files, "readme.txt", ".hidden.png", "._a.b.png")
    assert list_masks(tmp_path, images, masks) == {"a.b": files[1:]}


def test_split_folders_give_the_official_split_in_any_spelling(tmp_path):
    for image, ground_truth in (("Train", "train"), ("val", "val"), ("testing", "Testing")):
        touch(tmp_path, f"images/{image}/1.png", f"masks/{ground_truth}/1.png")
    patterns = PathPatterns(images="images/{split}/{id}.*", masks="masks/{split}/{id}.*")
    cases = read_patterns(tmp_path, patterns)
    assert {c.case_id: c.split for c in cases} == {
        "train_1": "train",
        "validation_1": "validation",
        "test_1": "test",
    }
    assert check_pairs(cases) == []


def test_patient_folders_group_cases_and_make_equal_names_unique(tmp_path):
    for patient in ("p1", "p2"):
        touch(tmp_path, f"{patient}/1.png", f"{patient}/1_seg.png")
    patterns = PathPatterns(images="{patient}/{id}.*", masks="{patient}/{id}_seg.*")
    cases = read_patterns(tmp_path, patterns)
    assert {c.case_id: c.patient_id for c in cases} == {"p1_1": "p1", "p2_1": "p2"}


def test_missing_partners_and_duplicate_stems_are_issues(tmp_path):
    touch(tmp_path, "images/a.png", "masks/b.png", "images/c.png", "images/c.jpg", "masks/c.png")
    patterns = PathPatterns(images="images/{id}.*", masks="masks/{id}.*")
    issues = check_pairs(read_patterns(tmp_path, patterns))
    assert [(f.case_id, f.kind) for f in issues] == [
        ("a", "mask-missing"),
        ("b", "image-missing"),
        ("c", "duplicate-id"),
        ("c", "duplicate-id"),
    ]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [("images/*.*", "{id} is missing"), ("{name}/{id}.*", "{name} is unknown; known: {id}")],
)
def test_invalid_pattern_is_a_usage_error(tmp_path, pattern, words):
    with pytest.raises(UsageError) as caught:
        read_patterns(tmp_path, PathPatterns(images=pattern, masks="{id}.*"))
    assert words in str(caught.value)


def test_table_states_patients_splits_strata_metadata_and_several_masks(tmp_path):
    (tmp_path / "pairs.csv").write_text(
        "image, mask, patient, split, stratum, age\n"
        "i/a.png, m/a.png, p1, train, benign, 40\n"
        "i/b.nii.gz, m/b1.nii.gz; m/b2.nii.gz, p2, val, malignant,\n"
        "i/c.png,, , , ,\n"
    )
    a, b, c = read_pair_table(tmp_path / "pairs.csv", root=tmp_path)
    assert (a.case_id, a.patient_id, a.split) == ("a", "p1", "train")
    assert a.extra == {"stratum": "benign", "age": "40"}
    assert (b.case_id, b.split) == ("b", "validation")
    assert b.mask_files == (tmp_path / "m/b1.nii.gz", tmp_path / "m/b2.nii.gz")
    assert (c.mask, c.patient_id, c.split, c.extra) == (None, None, None, {})


def test_json_and_csv_tables_give_equal_cases(tmp_path):
    rows = [
        {"image": "i/a.png", "mask": "m/a.png", "patient": "p1", "split": "test"},
        {"image": "i/b.png", "mask": ["m/b1.png", "m/b2.png"], "id": "second"},
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    (tmp_path / "pairs.csv").write_text(
        "image,mask,patient,split,id\ni/a.png,m/a.png,p1,test,\ni/b.png,m/b1.png;m/b2.png,,,second\n"
    )
    by_json, by_csv = (
        read_pair_table(tmp_path / name, root=tmp_path) for name in ("pairs.json", "pairs.csv")
    )
    assert by_json == by_csv
    assert [case.case_id for case in by_json] == ["a", "second"]


def test_equal_stems_in_a_table_get_path_ids_and_equal_ids_are_an_issue(tmp_path):
    table = tmp_path / "pairs.csv"
    touch(tmp_path, "x/1.png", "y/1.png", "m.png")
    table.write_text("image,mask\nx/1.png,m.png\ny/1.png,m.png\n")
    assert [c.case_id for c in read_pair_table(table, root=tmp_path)] == ["x_1", "y_1"]
    table.write_text("id,image,mask\none,x/1.png,m.png\none,y/1.png,m.png\n")
    issues = check_pairs(read_pair_table(table, root=tmp_path))
    assert [issue.kind for issue in issues] == ["duplicate-id", "duplicate-id"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("p.csv", "image,label\na.png,b.png\n", "column 'mask' is missing; it has image, label"),
        ("p.csv", "image,mask,patients\na,b,c\n", "column 'patients'; did you mean 'patient'"),
        ("p.csv", "image,mask,mask\na,b,c\n", "duplicate column 'mask'"),
        ("p.csv", "image,mask\n", "contains no row"),
        ("p.csv", "", "column 'image' is missing; it has none"),
        ("p.csv", "image,mask\na.png,b.png,c.png\n", "line 2 does not have one cell per column"),
        ("p.csv", "image,mask,split\na,b,dev\n", "split 'dev' is not one of train"),
        ("p.csv", "image,mask\n,b.png\n", "row 2 needs texts"),
        ("p.json", '{"image": 1}', "expected a list of objects"),
        ("p.json", "[{", "cannot be read as JSON"),
        (
            "p.json",
            '[{"image": "a.png", "mask": 3}]',
            "row 1 needs texts in the columns image and mask",
        ),
    ],
)
def test_invalid_table_is_a_one_line_data_error(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read_pair_table(tmp_path / name, root=tmp_path)
    assert str(tmp_path / name) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4


def test_table_with_missing_files_is_read_and_the_audit_reports_them(tmp_path):
    touch(tmp_path, "a.png", "m.png")
    (tmp_path / "pairs.csv").write_text("image,mask\na.png,m.png;n.png\nc.png,m.png\n")
    issues = check_pairs(read_pair_table(tmp_path / "pairs.csv", root=tmp_path))
    assert [(f.case_id, f.kind) for f in issues] == [("a", "mask-missing"), ("c", "image-missing")]
    assert str(tmp_path / "n.png") in issues[0].message


def test_description_states_classes_channels_license_and_mask_values(tmp_path):
    text = (
        "name: mine\nchannels: 3\nlicense: CC0\nsource: a friend\n"
        'classes: {background: [0, 7], wall: 128, lumen: ["#ffffff", 200]}\n'
    )
    make_folder(tmp_path, {"a": mask(128, 255, 200, 7)}, text=text)
    spec = describe_folder(tmp_path)
    assert (spec.name, spec.title, spec.license, spec.source) == (
        "folder",
        "mine",
        "CC0",
        "a friend",
    )
    assert (spec.classes, spec.in_channels) == (("background", "wall", "lumen"), 3)
    assert spec.mask_values == ((0, 7), (128,), ((255, 255, 255), 200))
    cases = spec.read_cases(tmp_path)
    assert check_cases(cases, spec) == []
    assert check_cases(cases, get_dataset("synthetic"))[0].kind == "mask-values"


def test_old_spelling_of_license_is_read_and_the_new_key_is_named(tmp_path, capsys):
    make_folder(tmp_path, {"a": mask(255)}, text=PLAIN + "licence: CC0\n")
    assert describe_folder(tmp_path).license == "CC0"
    assert capsys.readouterr().err.endswith("licence is now license\n")


def test_description_in_another_folder_names_its_root(tmp_path):
    data = make_folder(tmp_path / "data", {"a": mask(255)})
    (data / "dataset.yaml").unlink()
    file = tmp_path / "notes" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(PLAIN + BY_PATTERNS + "root: ../data\n")
    assert [case.case_id for case in read_folder(file)] == ["a"]


def test_folder_is_opened_with_its_description(tmp_path):
    make_folder(tmp_path, {"a": mask(255), "b": mask(0)})
    config = DataConfig(dataset="folder", data_dir=tmp_path, workers=0)
    opened = open_dataset(config)
    assert (opened.spec.classes, opened.spec.in_channels) == (("background", "cell"), 1)
    assert [case.case_id for case in opened.cases] == ["a", "b"]
    with pytest.raises(UsageError, match="--data-dir is missing: Your own folder"):
        open_dataset(DataConfig(dataset="folder"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (PLAIN, "either images and masks, or pairs"),
        (PLAIN + BY_PATTERNS + "pairs: p.csv\n", "either images and masks, or pairs"),
        (PLAIN + "images: '{id}.png'\n", "either images and masks, or pairs"),
        (PLAIN + BY_PATTERNS + "licens: x\n", "'licens'; did you mean 'license'"),
        (PLAIN.replace("1", "7") + BY_PATTERNS, "channels"),
        ("name: x\nchannels: 1\nclasses: [one]\n" + BY_PATTERNS, "classes"),
        ("name: x\nchannels: 1\nclasses: {a: 0, b: '#12'}\n" + BY_PATTERNS, "classes"),
        ("name: x\nchannels: 1\nclasses: {a: 0, b: 0}\n" + BY_PATTERNS, "assigned to two classes"),
        ("name: x\nname: y\n", "duplicate key 'name'"),
        ("just words", "expected keys and values"),
    ],
)
def test_invalid_description_is_a_one_line_usage_error(tmp_path, text, words):
    (tmp_path / "dataset.yaml").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_folder(tmp_path)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "dataset.yaml"))
    assert words in message
    assert "\n" not in message


def test_errors_for_missing_descriptions_and_files_name_the_fix(tmp_path):
    with pytest.raises(UsageError, match="segnetr data init"):
        read_folder(tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        read_folder(tmp_path / "none")
    (tmp_path / "dataset.yaml").write_text(PLAIN + BY_PATTERNS)
    with pytest.raises(UsageError, match=r"no file matches 'images/\{id\}"):
        read_folder(tmp_path)


class _Silent:
    """Progress without output."""

    def task(self, *_: object) -> "_Silent":
        return self

    def __enter__(self) -> object:
        return lambda *_: None

    def __exit__(self, *_: object) -> None:
        return None


def test_check_reports_each_issue_of_a_described_folder(tmp_path):
    make_folder(tmp_path, {"whole": mask(255), "odd": mask(99), "small": mask(255)[:10]})
    (tmp_path / "images" / "bare.png").write_bytes(b"")
    outcome = check_dataset(
        DataConfig(dataset="folder", data_dir=tmp_path, workers=0),
        progress=_Silent(),  # type: ignore[arg-type]
    )
    assert sorted((issue.case_id, issue.kind) for issue in outcome.issues) == [
        ("bare", "mask-missing"),
        ("odd", "mask-values"),
        ("small", "size-mismatch"),
    ]
    for path in (tmp_path / "masks").iterdir():
        save(path, mask(0))
    (tmp_path / "images" / "bare.png").unlink()
    emptied = check_dataset(
        DataConfig(dataset="folder", data_dir=tmp_path, workers=0),
        progress=_Silent(),  # type: ignore[arg-type]
    )
    assert [issue.kind for issue in emptied.issues] == ["no-foreground"]
