"""The cache decodes each image once, survives interruption and rebuilds damaged copies."""

import errno
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segnetr.data.cache import segmentation as cache_module
from segnetr.data.cache.segmentation import CacheResult, CacheSettings, build_cache
from segnetr.data.cache.store import CACHE_VERSION, find_cache_folder
from segnetr.data.case import Case
from segnetr.data.preprocessing.resize import reduce_size, resize_image, resize_mask
from segnetr.errors import ReadError, SegNetrError, WriteError

SETTINGS = CacheSettings(side=32, channels=3, classes=2)


def draw_cases(folder: Path, count: int = 3, size: tuple[int, int] = (60, 80)) -> list[Case]:
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for number in range(count):
        random = np.random.default_rng(number)
        image, mask = folder / f"c{number}.png", folder / f"c{number}_mask.png"
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(image)
        labels = np.zeros(size, np.uint8)
        labels[10 : 30 + number, 20:50] = 255
        Image.fromarray(labels).save(mask)
        cases.append(Case(case_id=f"c{number}", image=image, mask=mask))
    return cases


def build(cases: list[Case], folder: Path, **kwargs: Any) -> CacheResult:
    kwargs.setdefault("workers", 0)
    return build_cache(cases, kwargs.pop("settings", SETTINGS), folder=folder, **kwargs)


class Counter:
    """Counts the calls of what it stands for."""

    def __init__(self, function: Any) -> None:
        self.function = function
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(cache_module.read_image)
    monkeypatch.setattr(cache_module, "read_image", counter)
    return counter


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(cache_module.hash_cached_file)
    monkeypatch.setattr(cache_module, "hash_cached_file", counter)
    return counter


def test_copies_have_the_configured_shorter_side_and_types(tmp_path: Path) -> None:
    result = build(draw_cases(tmp_path / "data"), tmp_path / "cache")
    assert list(result.entries) == ["c0", "c1", "c2"]
    assert result.issues == []
    entry = result.entries["c1"]
    image, mask = np.load(entry.image), np.load(entry.mask)
    assert (image.shape, image.dtype) == ((32, 43, 3), np.uint8)
    assert (mask.shape, mask.dtype) == ((32, 43), np.uint8)
    assert entry.original_size == (60, 80)
    assert set(np.unique(mask)) == {0, 1}


def test_copy_is_an_area_average(tmp_path: Path) -> None:
    (case,) = draw_cases(tmp_path / "data", 1, (64, 64))
    entry = build([case], tmp_path / "cache").entries["c0"]
    original = np.asarray(Image.open(case.image), dtype=np.float64)
    means = original.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(np.load(entry.image) - means).max() <= 0.5


def test_small_image_is_not_enlarged(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data", 1, (60, 80))
    settings = CacheSettings(side=500, channels=3, classes=2)
    entry = build(cases, tmp_path / "cache", settings=settings).entries["c0"]
    assert np.array_equal(np.load(entry.image), np.asarray(Image.open(cases[0].image)))


def test_16_bit_images_stay_16_bit(tmp_path: Path) -> None:
    (case,) = draw_cases(tmp_path / "data", 1)
    deep = np.linspace(0, 65535, 60 * 80).reshape(60, 80).astype(np.uint16)
    Image.fromarray(deep).save(case.image)
    settings = CacheSettings(side=32, channels=1, classes=2)
    entry = build([case], tmp_path / "cache", settings=settings).entries["c0"]
    image = np.load(entry.image)
    assert (image.shape, image.dtype) == ((32, 43, 1), np.uint16)
    assert len(np.unique(image)) > 256


def test_second_build_neither_hashes_nor_decodes(
    tmp_path: Path, decoded: Counter, hashed: Counter
) -> None:
    cases = draw_cases(tmp_path / "data")
    first = build(cases, tmp_path / "cache")
    assert (decoded.calls, hashed.calls) == (3, 6)
    assert build(cases, tmp_path / "cache") == first
    assert (decoded.calls, hashed.calls) == (3, 6)


def test_moved_files_are_not_decoded_again(tmp_path: Path, decoded: Counter) -> None:
    first = build(draw_cases(tmp_path / "data"), tmp_path / "cache")
    again = build(draw_cases(tmp_path / "elsewhere"), tmp_path / "cache")
    assert again.entries == first.entries
    assert decoded.calls == 3


def test_changed_file_is_decoded_again(tmp_path: Path, decoded: Counter) -> None:
    cases = draw_cases(tmp_path / "data")
    first = build(cases, tmp_path / "cache")
    Image.fromarray(np.full((60, 80, 3), 7, np.uint8)).save(cases[1].image)
    second = build(cases, tmp_path / "cache")
    assert decoded.calls == 4
    assert second.entries["c0"] == first.entries["c0"]
    assert np.load(second.entries["c1"].image).max() == 7


@pytest.mark.parametrize(
    "settings",
    [
        CacheSettings(side=16, channels=3, classes=2),
        CacheSettings(side=32, channels=1, classes=2),
        CacheSettings(side=32, channels=3, classes=3),
        CacheSettings(side=32, channels=3, classes=2, max_pixels=100_000),
    ],
)
def test_other_settings_have_separate_copies(tmp_path: Path, settings: CacheSettings) -> None:
    cases = draw_cases(tmp_path / "data", 1)
    Image.fromarray(np.ones((60, 80), np.uint8)).save(cases[0].mask)
    first = build(cases, tmp_path / "cache").entries["c0"]
    assert build(cases, tmp_path / "cache", settings=settings).entries["c0"].image != first.image


@pytest.mark.parametrize("name", ["image", "mask"])
@pytest.mark.parametrize("damage", ["cut", "longer", "empty", "shape", "type", "gone", "text"])
def test_damaged_copy_is_rebuilt(tmp_path: Path, name: str, damage: str) -> None:
    cases = draw_cases(tmp_path / "data", 1)
    entry = build(cases, tmp_path / "cache").entries["c0"]
    path = getattr(entry, name).path
    whole = path.read_bytes()
    if damage == "shape":
        np.save(path, np.load(path)[:-1])
    elif damage == "type":
        np.save(path, np.load(path).astype(np.int8))
    elif damage == "gone":
        path.unlink()
    else:
        damaged = {"cut": whole[:-1], "longer": whole + b"0", "empty": b"", "text": b"PK\3\4 no"}
        path.write_bytes(damaged[damage])
    assert build(cases, tmp_path / "cache").entries["c0"] == entry
    assert path.read_bytes() == whole


@pytest.mark.slow
def test_workers_make_the_same_copies_and_report_progress(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data", 4)
    seen: list[tuple[int, int]] = []
    two = build(cases, tmp_path / "two", workers=2, progress=lambda *done: seen.append(done))
    none = build(cases, tmp_path / "none", workers=0)
    assert seen == [(number, 4) for number in range(5)]
    assert list(two.entries) == list(none.entries)
    for case_id, entry in none.entries.items():
        assert entry.image.path.read_bytes() == two.entries[case_id].image.path.read_bytes()
        assert entry.mask.path.read_bytes() == two.entries[case_id].mask.path.read_bytes()


def spoil(case: Case, kind: str) -> Case:
    assert case.mask is not None
    if kind == "cut image":
        case.image.write_bytes(case.image.read_bytes()[:2000])
    elif kind == "cut mask":
        case.mask.write_bytes(case.mask.read_bytes()[:60])
    elif kind == "size":
        Image.fromarray(np.zeros((61, 80), np.uint8)).save(case.mask)
    elif kind == "values":
        Image.fromarray(np.arange(4800, dtype=np.uint8).reshape(60, 80)).save(case.mask)
    elif kind == "no image":
        case.image.unlink()
    elif kind == "no mask":
        return Case(case_id=case.case_id, image=case.image)
    return case


@pytest.mark.parametrize(
    ("kind", "culprit", "code"),
    [
        ("cut image", "image", "image-unreadable"),
        ("cut mask", "mask", "mask-unreadable"),
        ("size", "mask", "size-mismatch"),
        ("values", "mask", "mask-values"),
        ("no image", "image", "image-missing"),
        ("no mask", "image", "mask-missing"),
    ],
)
def test_invalid_case_is_reported_and_the_others_are_built(
    tmp_path: Path, kind: str, culprit: str, code: str
) -> None:
    cases = draw_cases(tmp_path / "data")
    path = getattr(cases[1], culprit)
    cases[1] = spoil(cases[1], kind)
    for _ in range(2):  # built, then remembered
        result = build(cases, tmp_path / "cache")
        assert list(result.entries) == ["c0", "c2"]
        (issue,) = result.issues
        assert (issue.case_id, issue.path) == ("c1", path)
        assert str(path) in issue.message
        assert "\n" not in issue.message
        assert issue.kind == code


def test_issue_is_stored_until_the_file_changes(tmp_path: Path, decoded: Counter) -> None:
    cases = draw_cases(tmp_path / "data", 1)
    whole = cases[0].image.read_bytes()
    spoil(cases[0], "cut image")
    first = build(cases, tmp_path / "cache").issues
    assert build(cases, tmp_path / "cache").issues == first
    assert decoded.calls == 1
    cases[0].image.write_bytes(whole)
    assert build(cases, tmp_path / "cache").issues == []


def test_stored_issue_names_the_current_path(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (case,) = draw_cases(tmp_path / name, 1)
        spoil(case, "cut image")
        (issue,) = build([case], tmp_path / "cache").issues
        assert str(tmp_path / name) in issue.message


def test_disk_errors_are_not_stored_as_issues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = draw_cases(tmp_path / "data", 1)

    def fail(path: Path, **_: Any) -> None:
        try:
            raise OSError(errno.EIO, "Input/output error", str(path))
        except OSError as error:
            raise ReadError(path, "bad luck") from error

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_image", fail)
        (issue,) = build(cases, tmp_path / "cache").issues
        assert "Input/output error" in issue.message
    assert build(cases, tmp_path / "cache").issues == []


def test_file_that_changes_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = draw_cases(tmp_path / "data", 1)
    read = cache_module.read_image

    def read_late(path: Path, **kwargs: Any) -> Any:
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(path)
        return read(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(cache_module, "read_image", read_late)
        (issue,) = build(cases, tmp_path / "cache").issues
        assert "changed while it was read" in issue.message
    entry = build(cases, tmp_path / "cache").entries["c0"]
    assert np.load(entry.image).max() == 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_is_a_one_line_error_and_leaves_no_partial_copy(
    tmp_path: Path, workers: int
) -> None:
    cases = draw_cases(tmp_path / "data")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Enough for the small notes, too little for a image; processes inherit it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
        with pytest.raises(WriteError, match="File too large") as raised:
            build(cases, tmp_path / "cache", workers=workers)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(raised.value)
    assert str(tmp_path / "cache") in str(raised.value)
    assert_no_partial_files(tmp_path / "cache")
    assert len(build(cases, tmp_path / "cache").entries) == 3


def assert_no_partial_files(folder: Path) -> None:
    assert list(folder.rglob("*.npy")) == []
    assert list((folder / f"v{CACHE_VERSION}" / "parts").iterdir()) == []


def test_cache_folder_that_is_a_file_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WriteError, match=r"cannot write the cache .*data\.cache_dir"):
        build(draw_cases(tmp_path / "data", 1), tmp_path / "cache")


@pytest.mark.slow
def test_killed_decoding_process_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data", 40)

    def kill(done: int, _: int) -> None:
        if done == 1:
            for child in multiprocessing.active_children():
                if child.pid is not None:
                    os.kill(child.pid, signal.SIGKILL)

    with pytest.raises(SegNetrError, match="decoding process was killed"):
        build(cases, tmp_path / "cache", workers=2, progress=kill)
    assert len(build(cases, tmp_path / "cache").entries) == 40


@pytest.mark.slow
def test_decoding_process_starts_without_torch() -> None:
    code = "import sys, segnetr.data.cache.segmentation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _build_for_ever(cases: list[Case], folder: Path) -> None:
    number = 0
    while True:
        settings = CacheSettings(side=8 + number % 20, channels=3, classes=2)
        build_cache(cases, settings, folder=folder, workers=0)
        number += 1


@pytest.mark.slow
def test_killed_builder_leaves_no_invalid_copies(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data", 4)
    folder = tmp_path / "cache"
    builder = multiprocessing.get_context("fork").Process(
        target=_build_for_ever, args=(cases, folder)
    )
    builder.start()
    limit = time.monotonic() + 30
    while not list(folder.rglob("*.image.npy")) and time.monotonic() < limit:
        assert builder.is_alive()
    builder.kill()
    builder.join()
    for side in range(8, 28):
        settings = CacheSettings(side=side, channels=3, classes=2)
        after = build(cases, folder, settings=settings)
        clean = build(cases, tmp_path / "clean", settings=settings)
        for case_id, entry in clean.entries.items():
            assert after.entries[case_id].image.path.read_bytes() == entry.image.path.read_bytes()
            assert after.entries[case_id].mask.path.read_bytes() == entry.mask.path.read_bytes()


def test_parallel_builders_agree(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data", 6)
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=build, args=(cases, tmp_path / "cache")) for _ in range(3)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
        assert builder.exitcode == 0
    result = build(cases, tmp_path / "cache")
    assert len(result.entries) == 6
    clean = build(cases, tmp_path / "clean")
    for case_id, entry in clean.entries.items():
        assert result.entries[case_id].image.path.read_bytes() == entry.image.path.read_bytes()


def test_old_temporary_files_are_removed(tmp_path: Path) -> None:
    parts = tmp_path / "cache" / f"v{CACHE_VERSION}" / "parts"
    parts.mkdir(parents=True)
    old, new = parts / "old", parts / "new"
    for part in (old, new):
        part.write_bytes(b"part")
    os.utime(old, (0, 0))
    build(draw_cases(tmp_path / "data", 1), tmp_path / "cache")
    assert not old.exists()
    assert new.exists()


def test_original_files_are_never_modified(tmp_path: Path) -> None:
    cases = draw_cases(tmp_path / "data")
    before = {path: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    build(cases, tmp_path / "cache")
    assert {path: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SEGNETR_HOME": "/home/of"}, "/home/of/cache"),
        ({"SEGNETR_HOME": "/home/of", "XDG_CACHE_HOME": "/xdg"}, "/home/of/cache"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/segnetr"),
        ({"XDG_CACHE_HOME": "relative"}, "/me/.cache/segnetr"),
        ({}, "/me/.cache/segnetr"),
    ],
)
def test_default_folder_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.setenv("HOME", "/me")
    for name in ("SEGNETR_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert find_cache_folder() == Path(expected)


@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        ((4459, 6708), 256, (256, 385)),
        ((6708, 4459), 256, (385, 256)),
        ((100, 200), 100, (100, 200)),
        ((100, 200), 300, (100, 200)),
        ((1, 5000), 32, (1, 5000)),
        ((3, 7), 2, (2, 5)),
    ],
)
def test_reduced_size_preserves_the_aspect_ratio(
    size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    assert reduce_size(size, side) == expected


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("size", [(10, 60), (20, 12), (40, 50), (23, 37), (31, 41)])
def test_channels_are_resized_independently(channels: int, size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (31, 41, channels), dtype=np.uint8)
    together = resize_image(image, size)
    assert together.shape == (*size, channels)
    for channel in range(channels):
        alone = resize_image(np.ascontiguousarray(image[..., channel : channel + 1]), size)
        assert np.array_equal(together[..., channel : channel + 1], alone)


def test_binary_mask_is_thresholded_at_half_the_coverage() -> None:
    mask = np.zeros((63, 63), np.uint8)
    mask[:, 33] = mask[:, 35] = 1  # two thirds of column 11, but not its middle
    mask[:, 1] = 1  # a third of column 0, its middle
    reduced = resize_mask(mask, (21, 21))
    assert reduced[:, 11].all()
    assert not reduced[:, 0].any()


def test_resizing_never_creates_a_third_class() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 2
    assert set(np.unique(resize_mask(mask, (23, 29)))) == {0, 2}
    assert set(np.unique(resize_mask(mask, (90, 91)))) == {0, 2}
