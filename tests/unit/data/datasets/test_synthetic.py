"""The synthetic dataset: reproducible, written atomically, and not solved by a threshold."""

import json
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segnetr.data.datasets.isic import ISIC_2018, read_isic
from segnetr.data.datasets.synthetic import dataset as synthetic
from segnetr.data.datasets.synthetic.dataset import draw_dataset, prepare_synthetic, read_synthetic
from segnetr.data.datasets.synthetic.image import draw_synthetic_image
from segnetr.data.datasets.synthetic.noise import draw_cells, draw_clouds
from segnetr.errors import UsageError, WriteError

SMALL = {"train": 3, "validation": 2, "test": 1}


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "SYNTHETIC_COUNTS", SMALL)


def read_files(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_files_depend_on_the_seed_only(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        draw_dataset(tmp_path / name, counts=SMALL, seed=seed)
    first, again, other = (read_files(tmp_path / name) for name in "abc")
    assert first == again
    masks = [name for name in first if name.endswith("_segmentation.png")]
    assert len(masks) == 6
    assert all(first[name] != other[name] for name in masks)
    assert len({first[name] for name in masks}) == 6


def test_larger_dataset_starts_with_the_images_of_a_smaller_one(tmp_path):
    draw_dataset(tmp_path / "few", counts={"train": 1, "test": 1}, seed=5)
    draw_dataset(tmp_path / "more", counts={"train": 3, "test": 2}, seed=5)
    few, more = read_files(tmp_path / "few"), read_files(tmp_path / "more")
    assert {k: v for k, v in few.items() if k != "synthetic.json"}.items() <= more.items()


@pytest.mark.usefixtures("_small")
def test_reader_of_isic_2018_reads_the_synthetic_dataset(tmp_path):
    prepare_synthetic(tmp_path)
    cases = read_synthetic(tmp_path)
    assert cases == read_isic(tmp_path, layout=ISIC_2018)
    assert cases == read_synthetic(tmp_path / "synthetic")
    assert Counter(case.split for case in cases) == SMALL
    for case in cases:
        with Image.open(case.image) as image, Image.open(case.mask) as mask:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert (mask.format, mask.mode) == ("PNG", "L")
            assert image.size == mask.size
            assert set(np.unique(np.asarray(mask))) == {0, 255}


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
def test_current_version_is_not_regenerated_and_an_older_version_is(tmp_path):
    prepare_synthetic(tmp_path)
    marker = tmp_path / "synthetic" / "synthetic.json"
    victim = read_synthetic(tmp_path)[0].image
    victim.unlink()
    prepare_synthetic(tmp_path)
    assert not victim.exists(), "a complete dataset was modified"

    marker.write_text(json.dumps({"generator": synthetic.GENERATOR_VERSION - 1}))
    prepare_synthetic(tmp_path)
    assert victim.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
def test_interrupted_generation_leaves_no_files_and_can_be_repeated(tmp_path, monkeypatch):
    calls = []

    def fail_later(*args: object) -> tuple[np.ndarray, np.ndarray]:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return draw_synthetic_image(*args)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "draw_synthetic_image", fail_later)
        with pytest.raises(KeyboardInterrupt):
            prepare_synthetic(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="segnetr data check"):
        read_synthetic(tmp_path)

    abandoned = [tmp_path / ".drawn-partial-1", tmp_path / ".synthetic-partial-2"]
    for folder in abandoned:
        folder.mkdir()
        os.utime(folder, (0, 0))
    prepare_synthetic(tmp_path)
    assert len(read_synthetic(tmp_path)) == 6
    assert not any(folder.exists() for folder in abandoned)


@pytest.mark.slow
@pytest.mark.usefixtures("_small")
def test_dataset_that_another_process_finished_first_is_used(tmp_path, monkeypatch):
    def draw_twice(folder: Path, **request: object) -> None:
        draw_dataset(folder, **request)
        if not (tmp_path / "synthetic").exists():
            draw_dataset(tmp_path / "synthetic", **request)

    monkeypatch.setattr(synthetic, "draw_dataset", draw_twice)
    prepare_synthetic(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]
    assert len(read_synthetic(tmp_path)) == 6


@pytest.mark.usefixtures("_small")
def test_dataset_generated_by_version_0_1_stays_valid(tmp_path):
    prepare_synthetic(tmp_path)
    old = (tmp_path / "synthetic").rename(tmp_path / "drawn")
    (old / "synthetic.json").unlink()
    record = {"generator": 1, "seed": 20240229, "pictures": 6}  # words: allow
    (old / "drawn.json").write_text(json.dumps(record))
    before = read_files(tmp_path)
    for root in (tmp_path, old):
        prepare_synthetic(root)
        assert len(read_synthetic(root)) == 6
    assert read_files(tmp_path) == before


def test_unrelated_folder_is_never_modified(tmp_path):
    (tmp_path / "synthetic").mkdir()
    (tmp_path / "synthetic" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="not a generated dataset"):
        prepare_synthetic(tmp_path)
    assert read_files(tmp_path) == {"synthetic/mine.txt": b"mine"}


def test_error_names_the_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="file"):
        prepare_synthetic(tmp_path / "file" / "below")


def test_masks_are_one_component_of_the_specified_size():
    for seed in range(12):
        rng = np.random.default_rng(seed)
        image, mask = draw_synthetic_image(rng, 96, 128)
        assert image.shape == (96, 128, 3)
        assert image.dtype == np.uint8
        assert 0.02 <= mask.mean() <= 0.55
        components, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        assert components == 2
        outside, _ = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
        edge = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
        assert cv2.connectedComponents(edge, connectivity=4)[0] == 2, "the lesion has a hole"
        assert outside >= 2


@pytest.mark.slow
def test_global_threshold_segments_lesions_only_partly():
    scores = []
    for seed in range(40):
        image, mask = draw_synthetic_image(np.random.default_rng([9, seed]), 120, 160)
        gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        _, dark = cv2.threshold(gray, 0, 1, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)
        scores.append(2 * float((dark * mask).sum()) / float(dark.sum() + mask.sum()))
    assert 0.45 < np.mean(scores) < 0.8
    assert min(scores) < 0.2
    assert max(scores) > 0.9


@pytest.mark.slow
def test_lesions_differ_from_the_skin_around_them():
    """The inside of a mask is darker or redder than a ring around it."""
    hits = 0
    for seed in range(30):
        image, mask = draw_synthetic_image(np.random.default_rng([3, seed]), 120, 160)
        wide = cv2.dilate(mask.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
        near = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        green = image[..., 1].astype(float)
        hits += np.median(green[mask]) < np.median(green[wide & ~near]) - 4
    assert hits >= 28


def test_clouds_are_standardized_and_cells_surround_their_centers():
    rng = np.random.default_rng(0)
    clouds = draw_clouds(rng, 90, 130, coarsest=40, octaves=4)
    assert clouds.shape == (90, 130)
    assert abs(float(clouds.mean())) < 1e-4
    assert float(clouds.std()) == pytest.approx(1, abs=1e-4)

    cells = draw_cells(rng, 90, 130, spacing=9.5)
    assert cells.center.shape == (90, 130)
    assert float(cells.center.min()) < 0.1
    assert float(cells.center.max()) < 1.5
    assert float(cells.edge.min()) >= 0
    assert len(np.unique(cells.chance)) == pytest.approx(90 * 130 / 9.5**2, rel=0.35)


@pytest.mark.usefixtures("_small")
def test_dataset_that_another_process_has_installed_meanwhile_is_not_replaced(
    tmp_path, monkeypatch
):
    draw = synthetic.draw_dataset

    def draw_slowly(folder, *, counts, seed):
        draw(folder, counts=counts, seed=seed)
        if not (tmp_path / "synthetic").exists():
            draw(tmp_path / "synthetic", counts=counts, seed=seed)  # the other process

    monkeypatch.setattr(synthetic, "draw_dataset", draw_slowly)
    rename, renamed = Path.rename, []

    def record(path, target):
        renamed.append(path.name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", record)
    prepare_synthetic(tmp_path)
    assert "synthetic" not in renamed
    assert len(read_synthetic(tmp_path)) == sum(SMALL.values())
