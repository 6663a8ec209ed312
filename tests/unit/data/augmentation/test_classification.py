"""Augmentation for classification: every setting has an effect, and seeds determine the result."""

import math
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.data.augmentation.classification import (
    build_classification_augmentation,
    build_classification_evaluation,
)
from segnetr.data.augmentation.randaugment import find_operations
from segnetr.data.classification.loaders import TrainTransform
from segnetr.data.loading.loaders import SampleKey
from segnetr.data.preprocessing.resample import resample

SIZE = (24, 20)
OFF = ClassificationAugmentConfig(crop_scale=(1, 1), crop_ratio=(0.01, 100), flip=0)
SETTINGS = {
    "crop_scale": (0.2, 0.6),
    "padding": 5,
    "flip": 0.5,
    "flip_vertical": 0.5,
    "interpolation": "random",
    "randaugment_operations": 2,
    "brightness": 0.5,
    "contrast": 0.5,
    "saturation": 0.9,
    "hue": 0.4,
    "erasing_probability": 1.0,
}
COLORS = ("saturation", "hue")


def pixels(channels=3, dtype=np.uint8, size=(40, 50)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    planes = [(rows * (3 + k) + columns * (2 + 3 * k) + 40 * k) % 230 for k in range(channels)]
    noise = np.random.default_rng(0).integers(0, 20, (*size, channels))
    image = (np.stack(planes, axis=2) + noise).astype(np.uint8)
    return image if dtype == np.uint8 else (image / 255).astype(dtype)


def augment(config, seed, image=None, size=SIZE):
    image = pixels() if image is None else image
    change = TrainTransform(config, image_size=size, channels=image.shape[2])
    return change(image, seed)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_augmentations_preserve_size_type_and_range(channels, dtype):
    config = replace(
        OFF, **{k: v for k, v in SETTINGS.items() if k != "padding"}, randaugment_probability=1.0
    )
    image = pixels(channels, dtype)
    kept = image.copy()
    for seed in range(25):
        changed = augment(config, seed, image)
        assert changed.shape == (*SIZE, channels)
        assert changed.dtype == dtype
        assert changed.min() >= 0
        assert changed.max() <= (255 if dtype == np.uint8 else 1)
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_alone_changes_the_image(name, channels):
    config = replace(OFF, **{name: SETTINGS[name]})
    image = pixels(channels)
    plain = resample(image, SIZE, "bicubic")
    np.testing.assert_array_equal(augment(OFF, 0, image), plain)
    results = {augment(config, seed, image).tobytes() for seed in range(12)}
    if channels == 1 and name in COLORS:
        assert results == {plain.tobytes()}
    else:
        assert len(results) >= 2


def test_images_depend_on_the_seed_and_global_generators_are_not_used():
    config = replace(OFF, **{k: v for k, v in SETTINGS.items() if k != "padding"})
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    first = [augment(config, seed).tobytes() for seed in range(8)]
    assert first == [augment(config, seed).tobytes() for seed in range(8)]
    assert len(set(first)) == 8
    assert before == (
        random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    )  # fmt: skip


class Seeded(Dataset):
    """Seeds each sample, as the loaders of the application do."""

    def __init__(self, change):
        self.change = change

    def __len__(self):
        return 12

    def __getitem__(self, row):
        return torch.from_numpy(self.change(pixels(), SampleKey(1, row).seed(0)))


def test_batches_are_equal_for_any_number_of_workers():
    config = replace(OFF, **{k: v for k, v in SETTINGS.items() if k != "padding"})
    dataset = Seeded(TrainTransform(config, image_size=SIZE, channels=3))
    loads = [
        torch.cat(list(DataLoader(dataset, batch_size=4, num_workers=workers)))
        for workers in (0, 2)
    ]
    assert torch.equal(*loads)


def test_crops_have_the_configured_areas_and_aspect_ratios():
    pipeline = build_classification_augmentation(
        ClassificationAugmentConfig(crop_scale=(0.1, 0.5), crop_ratio=(0.5, 2.0)),
        image_size=SIZE,
        channels=1,
    )
    pipeline.set_random_state(np.random.default_rng(1), random.Random(1))
    crop = pipeline.transforms[0]
    boxes = [
        crop.get_params_dependent_on_data({"shape": (200, 300, 1)}, {})["box"] for _ in range(400)
    ]
    shares = np.array([down * across / 60_000 for _, _, down, across in boxes])
    ratios = np.array([across / down for _, _, down, across in boxes])
    assert 0.098 < shares.min() < 0.13
    assert 0.45 < shares.max() < 0.51
    assert shares.mean() == pytest.approx(0.3, abs=0.02)
    assert 0.48 < ratios.min() < 0.6
    assert 1.7 < ratios.max() < 2.05
    assert np.log(ratios).mean() == pytest.approx(0, abs=0.06)
    for top, left, down, across in boxes:
        assert 0 <= top <= 200 - down
        assert 0 <= left <= 300 - across


def test_crop_that_never_fits_is_central_with_the_nearest_aspect_ratio():
    config = ClassificationAugmentConfig(crop_scale=(1, 1), crop_ratio=(0.9, 1.1))
    pipeline = build_classification_augmentation(config, image_size=SIZE, channels=1)
    box = pipeline.transforms[0].get_params_dependent_on_data({"shape": (100, 400, 1)}, {})["box"]
    assert box == (0, 145, 100, 110)


def test_padded_crop_moves_the_image_over_black():
    image = np.full((20, 20, 1), 200, dtype=np.uint8)
    config = replace(OFF, padding=4)
    covers = [augment(config, seed, image, size=(20, 20)) for seed in range(40)]
    assert {bytes(np.unique(cover)) for cover in covers} <= {bytes([0, 200]), bytes([200])}
    rows = {int((cover[:, 10, 0] > 0).sum()) for cover in covers}
    assert min(rows) == 16
    assert max(rows) == 20


@pytest.mark.parametrize("mode", ["pixel", "color", "mean"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_erasing_fills_rectangles_by_its_mode(mode, dtype):
    image = pixels(3, dtype, (64, 64))
    config = replace(OFF, erasing_probability=1.0, erasing_mode=mode)
    shares = []
    for seed in range(30):
        changed = augment(config, seed, image, size=(64, 64))
        erased = (changed != image).any(axis=2)
        shares.append(erased.mean())
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        inside = np.zeros_like(erased)
        inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(changed[~inside], image[~inside])
        colors = np.unique(box.reshape(-1, 3), axis=0)
        if mode == "pixel":
            assert len(colors) > len(box.reshape(-1, 3)) / 2
        elif mode == "mean":
            np.testing.assert_allclose(
                box[0, 0], image.mean((0, 1)), atol=1 if dtype == np.uint8 else 1e-4
            )
        else:
            assert len(colors) == 1
    assert 0.01 < min(shares) < 0.06
    assert 0.22 < max(shares) < 0.35


def test_erasing_has_its_probability_and_count():
    image = np.zeros((64, 64, 1), dtype=np.uint8)
    rare = replace(OFF, erasing_probability=0.3)
    hits = sum(augment(rare, seed, image, size=(64, 64)).any() for seed in range(200))
    assert hits == pytest.approx(60, abs=20)
    several = replace(OFF, erasing_probability=1.0, erasing_count=4, erasing_mode="color")
    colors = [
        len(np.unique(augment(several, seed, image, size=(64, 64)))) - 1 for seed in range(40)
    ]
    assert max(colors) == 4
    assert min(colors) <= 1


PUBLISHED = {
    "identity", "auto_contrast", "equalize", "rotate", "solarize", "color", "posterize",
    "contrast", "brightness", "sharpness", "shear_across", "shear_down", "shift_across",
    "shift_down",
}  # fmt: skip


def test_operations_are_the_fourteen_of_the_paper():
    assert set(find_operations(3)) == PUBLISHED
    assert set(find_operations(1)) == PUBLISHED - {"color"}


@pytest.mark.parametrize("name", sorted(PUBLISHED - {"auto_contrast", "equalize"}))
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_strength_zero_changes_nothing(name, dtype):
    image = pixels(3, dtype)
    changed = find_operations(3)[name](image, 0.0)
    np.testing.assert_allclose(changed, image, atol=1e-6)


@pytest.mark.parametrize(
    "name", sorted(PUBLISHED - {"identity", "auto_contrast", "equalize", "posterize"})
)
def test_operations_grow_with_their_strength(name):
    rows, columns = np.mgrid[:40, :50]
    ramp = np.stack([rows / 39, columns / 49, (rows + columns) / 88], axis=2)
    noise = np.random.default_rng(0).uniform(-0.02, 0.02, ramp.shape)
    image = (ramp + noise).clip(0, 1).astype(np.float32)
    operation = find_operations(3)[name]
    changes = [np.abs(operation(image, s) - image).mean() for s in (0.0, 0.3, 0.6, 1.0)]
    assert changes == sorted(changes)
    assert changes[1] > 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_eight_bit_and_floating_point_images_agree(name, channels):
    if name not in find_operations(channels):
        pytest.skip("needs colors")
    operation = find_operations(channels)[name]
    image = pixels(channels)
    for strength in (-0.7, 0.45, 1.0):
        coarse = operation(image, strength)
        fine = operation((image / 255).astype(np.float32), strength)
        assert coarse.shape == fine.shape == image.shape
        assert np.abs(coarse / 255 - fine).max() <= 2.5 / 255


def test_operations_do_what_their_names_say():
    operations = find_operations(3)
    image = pixels(3)
    assert len(np.unique(operations["posterize"](image, 1.0) & 15)) == 1
    np.testing.assert_array_equal(operations["solarize"](image, 1.0), 255 - image)
    half = operations["solarize"](image, 0.5)
    np.testing.assert_array_equal(half, np.where(image >= 128, 255 - image, image))
    gray = operations["color"](image, -1.0).astype(int)
    assert np.ptp(gray, axis=2).max() <= 0.1 * np.ptp(image.astype(int), axis=2).max() + 1
    stretched = operations["auto_contrast"](np.array([[[20], [60]], [[100], [120]]], np.uint8), 0)
    assert stretched.ravel().tolist() == [0, 102, 204, 255]
    np.testing.assert_allclose(operations["brightness"](image, -1.0), image * 0.1, atol=0.51)
    flat = np.full((9, 9, 3), 77, dtype=np.uint8)
    np.testing.assert_array_equal(operations["sharpness"](flat, 1.0), flat)
    np.testing.assert_array_equal(operations["auto_contrast"](flat, 1.0), flat)


def test_geometric_operations_have_the_ranges_of_the_paper():
    operations = find_operations(1)
    image = np.zeros((331, 331, 1), dtype=np.uint8)
    image[160:171, 160:171] = 255

    def middle(strength, name):
        rows, columns = np.nonzero(operations[name](image, strength)[..., 0] > 200)
        return rows.mean() - 165, columns.mean() - 165

    assert middle(1.0, "shift_across") == pytest.approx((0, 150), abs=0.5)
    assert middle(-0.5, "shift_down") == pytest.approx((-75, 0), abs=0.5)
    bar = np.full((101, 101, 1), 255, dtype=np.uint8)
    bar[:, 51:] = 0
    for strength, name, angle in (
        (1.0, "rotate", 30),
        (1.0, "shear_across", math.degrees(math.atan(0.3))),
    ):
        edge = [
            np.flatnonzero(row > 200).max() for row in operations[name](bar, strength)[30:71, :, 0]
        ]
        slope = np.polyfit(np.arange(41), edge, 1)[0]
        assert abs(math.degrees(math.atan(slope))) == pytest.approx(angle, abs=1)


def test_randaugment_applies_its_probability_and_count():
    config = replace(
        OFF, randaugment_operations=3, randaugment_probability=0.4, randaugment_deviation=0.0
    )
    pipeline = build_classification_augmentation(config, image_size=SIZE, channels=3)
    pipeline.set_random_state(np.random.default_rng(0), random.Random(0))
    draws = [pipeline.transforms[1].get_params()["operations"] for _ in range(500)]
    assert max(map(len, draws)) <= 3
    assert np.mean([len(operations) for operations in draws]) == pytest.approx(1.2, abs=0.15)
    names = {name for operations in draws for name, _ in operations}
    assert names == PUBLISHED
    assert {abs(strength) for operations in draws for _, strength in operations} == {0.9}
    assert {strength > 0 for operations in draws for _, strength in operations} == {True, False}


@pytest.mark.parametrize("filter_name", ["bilinear", "bicubic"])
def test_evaluation_is_the_published_resizing_and_central_crop(filter_name):
    image = pixels(3, size=(90, 131))
    config = ClassificationAugmentConfig(evaluation_crop=0.875, interpolation=filter_name)
    fitted = build_classification_evaluation(config, image_size=(56, 56))(image=image)["image"]
    kind = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[filter_name]
    resized = Image.fromarray(image).resize((int(64 * 131 / 90), 64), kind)
    left, top = round((resized.width - 56) / 2), 4
    np.testing.assert_array_equal(fitted, np.asarray(resized)[top : top + 56, left : left + 56])


def test_evaluation_can_resize_the_whole_image():
    image = pixels(1, size=(90, 131))
    config = ClassificationAugmentConfig(evaluation_fit="squash", evaluation_crop=0.5)
    fitted = build_classification_evaluation(config, image_size=(32, 40))(image=image)["image"]
    np.testing.assert_array_equal(fitted, resample(image, (32, 40), "bicubic"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("size", [(32, 32), (17, 61), (90, 131)])
def test_evaluation_supports_any_channels_types_and_aspect_ratios(channels, dtype, size):
    config = ClassificationAugmentConfig(evaluation_crop=0.9)
    pipeline = build_classification_evaluation(config, image_size=(32, 48))
    image = pixels(channels, dtype, size)
    fitted = pipeline(image=image)["image"]
    assert fitted.shape == (32, 48, channels)
    assert fitted.dtype == dtype
    assert 0 <= fitted.min() <= fitted.max() <= (255 if dtype == np.uint8 else 1)


def test_evaluation_does_not_change_images_of_the_right_size():
    image = pixels(3, size=(32, 32))
    config = ClassificationAugmentConfig()
    fitted = build_classification_evaluation(config, image_size=(32, 32))(image=image)["image"]
    np.testing.assert_array_equal(fitted, image)


@pytest.mark.slow
def test_import_disables_the_version_check_of_albumentations():
    code = (
        "import os; os.environ.pop('NO_ALBUMENTATIONS_UPDATE', None)\n"
        "import segnetr.data.augmentation.classification\n"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
