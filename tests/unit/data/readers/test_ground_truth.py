"""Test masks in several files and masks with a value table: reading, caching, checking, scoring."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from segnetr.data.cache.segmentation import CacheSettings, build_cache
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.image_file import ClassValues, MaskSizeError, MaskValuesError
from segnetr.data.readers.read_files import read_ground_truth, read_mask_file
from segnetr.data.validation.audit import check_cases, check_pairs

COLORS: ClassValues = (((0, 0, 0),), ((255, 0, 0), (200, 0, 0)), ((0, 255, 0),))
GRAYS: ClassValues = ((0,), (128,), (255,))


def save(path: Path, values: np.ndarray) -> Path:
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


def make_spec(*, classes: int = 2, values: ClassValues | None = None) -> DatasetSpec:
    return DatasetSpec(
        name="made",
        title="Made",
        read_cases=lambda _root: [],
        classes=tuple(f"c{index}" for index in range(classes)),
        in_channels=3,
        spatial_dims=2,
        counts={},
        source="here",
        license="none",
        mask_values=values,
    )


def make_case(folder: Path, name: str, masks: list[np.ndarray]) -> Case:
    image = save(folder / f"{name}.png", np.full((*masks[0].shape[:2], 3), 90))
    files = [save(folder / f"{name}_mask_{row}.png", mask) for row, mask in enumerate(masks)]
    return Case(case_id=name, image=image, mask=files[0], more_masks=tuple(files[1:]))


def blob(row: int, *, shape: tuple[int, int] = (40, 48)) -> np.ndarray:
    mask = np.zeros(shape)
    mask[row : row + 6, 5:20] = 255
    return mask


def settings(spec: DatasetSpec) -> CacheSettings:
    return CacheSettings(side=64, channels=3, classes=len(spec.classes), values=spec.mask_values)


def test_ground_truth_is_the_union_of_its_mask_files(tmp_path):
    case = make_case(tmp_path, "a", [blob(2), blob(20), blob(4)])
    ground_truth = read_ground_truth(case.mask_files, classes=2)
    expected = (blob(2) + blob(20) + blob(4)) > 0
    assert np.array_equal(ground_truth.array, expected.astype(np.uint8))
    assert ground_truth.path == case.mask


def test_mask_files_that_disagree_in_size_or_class_are_rejected(tmp_path):
    small = make_case(tmp_path, "a", [blob(2), blob(2, shape=(30, 48))])
    with pytest.raises(MaskSizeError, match=r"30 x 48 where a_mask_0\.png is 40 x 48"):
        read_ground_truth(small.mask_files, classes=2)
    mixed = make_case(tmp_path, "b", [blob(2) / 255, blob(4) / 255 * 2])
    with pytest.raises(MaskValuesError, match="other classes to pixels than another mask"):
        read_ground_truth(mixed.mask_files, classes=3)


def test_mask_values_are_mapped_by_the_value_table(tmp_path):
    gray = np.array([[0, 128], [255, 0]])
    mask = read_mask_file(save(tmp_path / "g.png", gray), classes=3, values=GRAYS)
    assert mask.array.tolist() == [[0, 1], [2, 0]]
    color = np.zeros((2, 2, 3))
    color[0, 0], color[0, 1], color[1, 0] = (255, 0, 0), (200, 0, 0), (0, 255, 0)
    path = save(tmp_path / "c.png", color)
    assert read_mask_file(path, classes=3, values=COLORS).array.tolist() == [[1, 1], [2, 0]]
    inverted = read_mask_file(save(tmp_path / "i.png", blob(2)), classes=2, values=((255,), (0,)))
    assert np.array_equal(inverted.array, (blob(2) == 0).astype(np.uint8))


def test_palette_mask_is_mapped_by_colors_or_by_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1], [7, 0]], dtype=np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0, *[9] * 15, 0, 255, 0])
    image.save(tmp_path / "p.png")
    by_color = read_mask_file(tmp_path / "p.png", classes=3, values=COLORS)
    by_index = read_mask_file(tmp_path / "p.png", classes=3, values=((0,), (1,), (7,)))
    assert by_color.array.tolist() == by_index.array.tolist() == [[0, 1], [2, 0]]


def test_volume_mask_is_mapped_by_the_value_table(tmp_path):
    voxels = np.zeros((4, 5, 6), dtype=np.int16)
    voxels[1:3] = 300
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "m.nii.gz")
    mask = read_mask_file(tmp_path / "m.nii.gz", classes=2, values=((0,), (300,)))
    assert np.array_equal(mask.array, (voxels > 0).astype(np.uint8))


def test_value_outside_the_table_is_named_in_the_error(tmp_path):
    path = save(tmp_path / "g.png", np.array([[0, 128], [255, 77]]))
    with pytest.raises(
        MaskValuesError, match=r"g\.png: it holds 77, which the dataset description"
    ):
        read_mask_file(path, classes=3, values=GRAYS)
    color = save(tmp_path / "c.png", np.full((2, 2, 3), (1, 2, 3)))
    with pytest.raises(MaskValuesError, match=r"\(1, 2, 3\), which"):
        read_mask_file(color, classes=3, values=COLORS)


def test_cache_stores_the_merged_and_mapped_mask_and_loads_it_again(tmp_path):
    case = make_case(tmp_path, "a", [blob(2), blob(20)])
    spec = make_spec()
    for _ in range(2):
        made = build_cache([case], settings(spec), folder=tmp_path / "cache", workers=0)
        cached = np.load(made.entries["a"].mask)
        assert np.array_equal(cached, ((blob(2) + blob(20)) > 0).astype(np.uint8))


def test_changed_mask_file_or_value_table_invalidates_the_cache(tmp_path):
    case = make_case(tmp_path, "a", [blob(2), blob(20)])
    folder = tmp_path / "cache"

    def cached(spec: DatasetSpec) -> np.ndarray:
        made = build_cache([case], settings(spec), folder=folder, workers=0)
        return np.load(made.entries["a"].mask)

    first = cached(make_spec())
    save(case.more_masks[0], blob(30))
    assert np.array_equal(cached(make_spec()), ((blob(2) + blob(30)) > 0).astype(np.uint8))
    assert not np.array_equal(first, cached(make_spec()))
    swapped = build_cache(
        [make_case(tmp_path, "b", [blob(2)])],
        settings(make_spec(values=((255,), (0,)))),
        folder=folder,
        workers=0,
    )
    assert np.array_equal(np.load(swapped.entries["b"].mask), (blob(2) == 0).astype(np.uint8))


def test_issue_in_one_mask_file_names_that_file_in_check_and_cache(tmp_path):
    sound, small, gray, mixed = (
        make_case(tmp_path, "sound", [blob(2)]),
        make_case(tmp_path, "small", [blob(2), blob(2), blob(2, shape=(30, 48))]),
        make_case(tmp_path, "gray", [blob(2), blob(2) / 2]),
        make_case(tmp_path, "mixed", [blob(2), blob(2)]),
    )
    mixed.more_masks[0].write_bytes(mixed.more_masks[0].read_bytes()[:60])
    cases, spec = [sound, small, gray, mixed], make_spec()
    expected = [
        (small.more_masks[1], "size-mismatch"),
        (gray.more_masks[0], "mask-values"),
        (mixed.more_masks[0], "mask-unreadable"),
    ]
    checked = check_cases(cases, spec)
    assert [(issue.path, issue.kind) for issue in checked] == expected
    for _ in range(2):
        made = build_cache(cases, settings(spec), folder=tmp_path / "cache", workers=0)
        assert [(issue.path, issue.kind) for issue in made.issues] == expected


def test_missing_mask_file_is_an_issue_of_its_case(tmp_path):
    case = make_case(tmp_path, "a", [blob(2), blob(20)])
    case.more_masks[0].unlink()
    (issue,) = check_pairs([case])
    assert issue.kind == "mask-missing"
    assert str(case.more_masks[0]) in issue.message


def test_only_masks_that_are_all_empty_are_reported_as_an_issue(tmp_path):
    empty = [make_case(tmp_path, f"e{row}", [blob(2) * 0]) for row in range(2)]
    full = make_case(tmp_path, "full", [blob(2)])
    spec, folder = make_spec(), tmp_path / "cache"
    assert check_cases([*empty, full], spec) == []
    assert build_cache([*empty, full], settings(spec), folder=folder, workers=0).issues == []
    (found,) = check_cases(empty, spec)
    made = build_cache(empty, settings(spec), folder=folder, workers=0)
    (cached,) = made.issues
    assert found == cached
    assert found.kind == "no-foreground"
    assert "any other of the 2 masks" in found.message
    assert not made.entries
