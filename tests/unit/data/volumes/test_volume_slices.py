"""Slices of volumes: scaling, axes, neighbors, pixel size, padding, caching."""

from pathlib import Path

import numpy as np
import pytest
from support.volume_files import MIRRORED, OBLIQUE, draw_volume, write_nifti

from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.augmentation.transforms import CropToSized, load_cached
from segnetr.data.cache import segmentation as cache_module
from segnetr.data.cache.segmentation import CachedCase, CacheSettings, build_cache
from segnetr.data.cache.volumes import VolumeSettings
from segnetr.data.case import Case
from segnetr.data.loading.volume_slices import list_slices
from segnetr.data.preprocessing.resize import resize_image, resize_labels
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.volumes.intensity import scale_volume
from segnetr.data.volumes.slice_stack import find_plane, open_stack, pad_plane, restore_axis

PER_VOLUME = IntensityConfig(kind="per_volume")
SETTINGS = CacheSettings(
    side=12,
    channels=1,
    classes=2,
    volume=VolumeSettings(axis=2, spacing_mm=None, intensity=PER_VOLUME),
)


def as_file(array: np.ndarray, spacing: tuple[float, ...] = (1.5, 1.5, 3.0)) -> ImageFile:
    return ImageFile(path=Path("drawn.nii"), array=array, kind="volume", spacing=spacing)


def write_case(folder: Path, number: int = 0, affine: np.ndarray | None = None) -> Case:
    values, labels = draw_volume(seed=number)
    return Case(
        case_id=f"c{number}",
        image=write_nifti(folder / f"c{number}.nii.gz", values, affine),
        mask=write_nifti(folder / f"c{number}_gt.nii.gz", labels, affine),
    )


def test_values_are_scaled_by_the_non_zero_voxels() -> None:
    values = np.zeros((6, 6, 4), np.float32)
    values[2:4, :, :] = np.random.default_rng(1).normal(500, 20, (2, 6, 4))
    scaled = scale_volume(values, PER_VOLUME) / 65535 * 10 - 5
    inside = scaled[2:4]
    assert abs(inside.mean()) < 1e-3
    assert abs(inside.std() - 1) < 1e-3
    assert (scaled[0] == -5).all()


def test_window_and_percentiles_clip_values_outside() -> None:
    values = np.arange(-1000, 1000, dtype=np.int16).reshape(10, 10, 20)
    window = IntensityConfig(kind="window", low=-100.0, high=100.0)
    scaled = scale_volume(values, window)
    assert scaled[values <= -100].max() == 0
    assert scaled[values >= 100].min() == 65535
    assert abs(int(scaled[values == 0][0]) - 32768) <= 1
    half = scale_volume(values, IntensityConfig(kind="percentiles", low=25.0, high=75.0))
    assert np.count_nonzero(half == 0) == pytest.approx(500, abs=2)
    assert np.count_nonzero(half == 65535) == pytest.approx(500, abs=2)


@pytest.mark.parametrize("kind", ["per_volume", "percentiles"])
def test_noise_of_a_constant_volume_is_not_amplified(kind: str) -> None:
    values = np.full((4, 4, 4), 700, np.int16)
    assert len(np.unique(scale_volume(values, IntensityConfig(kind=kind)))) == 1


def test_modalities_are_scaled_separately() -> None:
    values, _ = draw_volume()
    both = np.stack([values, 50 * values], axis=-1)
    scaled = scale_volume(both, PER_VOLUME)
    np.testing.assert_array_equal(scaled[..., 0], scaled[..., 1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "window", "low": 3.0},
        {"kind": "window", "low": 3.0, "high": 3.0},
        {"kind": "percentiles", "low": -1.0},
        {"kind": "percentiles", "low": 60.0, "high": 40.0},
        {"kind": "per_volume", "low": 1.0},
    ],
)
def test_invalid_limits_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="low"):
        IntensityConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_of_any_axis_are_restored(axis: int) -> None:
    values, _ = draw_volume((5, 7, 9))
    plain = IntensityConfig(mean=(0.0,), std=(1.0,))
    stack = open_stack(as_file(values), SliceConfig(axis=axis), plain)
    assert stack.depth == values.shape[axis]
    planes = [stack.view(index)[..., 0] for index in range(stack.depth)]
    np.testing.assert_array_equal(restore_axis(np.stack(planes, axis=-1), axis), values)
    np.testing.assert_array_equal(planes[2], np.take(values, 2, axis=axis))


def test_neighbors_are_in_order_and_the_ends_are_repeated() -> None:
    values = np.stack([np.full((3, 4), 10 * k) for k in range(4)], axis=-1).astype(np.uint8)
    plain = IntensityConfig(mean=(0.0,), std=(1.0,))
    stack = open_stack(as_file(values), SliceConfig(neighbors=2), plain)
    assert stack.view(0)[0, 0].tolist() == [0, 0, 0, 10, 20]
    assert stack.view(2)[0, 0].tolist() == [0, 10, 20, 30, 30]


def test_slices_are_resampled_to_the_pixel_size() -> None:
    assert find_plane((100, 60), (1.5, 0.5), (1.0, 1.0)) == (150, 30)
    assert find_plane((100, 60), None, (1.0, 1.0)) == (100, 60)
    assert find_plane((3, 3), (0.1, 0.1), (5.0, 5.0)) == (1, 1)


def test_padding_is_even_and_skips_large_slices() -> None:
    padded = pad_plane(np.ones((3, 8, 2)), (6, 8), value=7)
    assert padded.shape == (6, 8, 2)
    assert (padded[[0, 4, 5]] == 7).all()
    assert (padded[1:4] == 1).all()
    whole = np.ones((9, 9))
    assert pad_plane(whole, (6, 8), value=7) is whole


def test_masks_are_resized_by_label_shares() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[8:20, 8:32], labels[20:32, 8:32] = 3, 7
    small = resize_labels(labels, (20, 20))
    assert set(np.unique(small)) == {0, 3, 7}
    np.testing.assert_array_equal(small, labels[::2, ::2])
    large = resize_labels(labels, (80, 80))
    for label in (0, 3, 7):
        assert np.count_nonzero(large == label) == pytest.approx(
            4 * np.count_nonzero(labels == label), rel=0.02
        )


def test_cached_slices_equal_those_of_the_stack(tmp_path: Path) -> None:
    case = write_case(tmp_path)
    (entry,) = build_cache([case], SETTINGS, folder=tmp_path, workers=0).entries.values()
    values, labels = draw_volume()
    assert entry.original_size == (20, 24, 6)
    assert entry.has_foreground == (False, True, True, True, True, False)
    assert np.load(entry.image).shape == (6, 12, 14, 1)
    stack = open_stack(as_file(values), SliceConfig(neighbors=1), PER_VOLUME)
    for sample in list_slices([entry], neighbors=1, empty_share=1.0):
        index = sample.image.index
        image = load_cached(sample.image, case_id="")
        assert image.dtype == np.float32
        expected = resize_image(stack.view(index), (12, 14)).astype(np.float32) / 65535
        np.testing.assert_allclose(image, expected, atol=1e-6)
        mask = load_cached(sample.mask, case_id="")
        np.testing.assert_array_equal(mask, resize_labels(labels[..., index].copy(), (12, 14)))


def test_files_of_any_spacing_are_resampled_to_one_pixel_size(tmp_path: Path) -> None:
    how = VolumeSettings(axis=2, spacing_mm=(1.0, 1.0), intensity=PER_VOLUME)
    settings = CacheSettings(side=1000, channels=1, classes=2, volume=how)
    cases = [
        write_case(tmp_path, number, np.diag([side, 2 * side, 4.0, 1.0]))
        for number, side in enumerate((1.0, 2.0))
    ]
    entries = build_cache(cases, settings, folder=tmp_path, workers=0).entries
    assert np.load(entries["c0"].image).shape == (6, 20, 48, 1)
    assert np.load(entries["c1"].image).shape == (6, 40, 96, 1)


def test_volume_is_decoded_once_for_any_number_of_neighbors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = write_case(tmp_path)
    build_cache([case], SETTINGS, folder=tmp_path, workers=0)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the volume was decoded again")

    monkeypatch.setattr(cache_module, "read_image", refuse)
    assert build_cache([case], SETTINGS, folder=tmp_path, workers=0).entries


@pytest.mark.parametrize("affine", [OBLIQUE, MIRRORED])
def test_oblique_and_mirrored_volumes_are_accepted(tmp_path: Path, affine: np.ndarray) -> None:
    result = build_cache(
        [write_case(tmp_path, affine=affine)], SETTINGS, folder=tmp_path, workers=0
    )
    assert result.issues == []


def test_share_of_empty_slices_is_limited() -> None:
    entries = [
        CachedCase(
            case_id=f"c{number}",
            image=Path("i"),
            mask=Path("m"),
            original_size=(1, 1, 1),
            has_foreground=(False,) * 8 + (True,) * 2,
        )
        for number in range(9)
    ]
    for share, empty in ((1.0, 72), (0.5, 18), (0.25, 6), (0.0, 0)):
        names = [s.case_id for s in list_slices(entries, neighbors=0, empty_share=share)]
        assert len(names) == len(set(names)) == 18 + empty
        assert {f"c{n}#{i}" for n in range(9) for i in (8, 9)} <= set(names)
    more = list_slices(entries[:-1], neighbors=0, empty_share=1.0)
    assert [s.case_id for s in more][:3] == ["c0#0", "c0#1", "c0#2"]


def test_window_aligns_image_and_mask_and_pads_small_slices() -> None:
    image = np.arange(60 * 40, dtype=np.float32).reshape(60, 40, 1)
    mask = np.zeros((60, 40), np.uint8)
    mask[50:, 30:] = 1
    crop = CropToSized((16, 48))
    hits = 0
    for seed in range(60):
        crop.set_random_state(seed=seed)
        cut = crop({"image": image, "mask": mask})
        assert cut["image"].shape == (16, 48, 1)
        assert cut["mask"].shape == (16, 48)
        rows, columns = np.nonzero(cut["mask"])
        hits += rows.size > 0
        # Pixel numbers tell where they come from: the mask must lie on the same ones.
        numbers = cut["image"][rows, columns, 0].astype(int)
        assert all(n // 40 >= 50 and n % 40 >= 30 for n in numbers)
    assert hits > 30  # a window laid anywhere meets the lesion in about one of four
