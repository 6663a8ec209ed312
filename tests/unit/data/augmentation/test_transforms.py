"""Augmentation for segmentation: effects of the settings, alignment of masks, seeding."""

import os
import random
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAdjustContrastd, RandFlipd, Randomizable

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig
from segnetr.data.augmentation.segmentation import WarpToSize, build_augmentation
from segnetr.data.augmentation.transforms import (
    Albumentationsd,
    LoadCachedd,
    evaluation_transform,
    load_cached,
    training_transform,
)
from segnetr.data.preprocessing.resize import resize_image, resize_mask
from segnetr.errors import ReadError, UsageError

SIZE = (48, 48)
OFF = AugmentConfig(
    flip=False,
    rotate_degrees=0,
    scale=(1, 1),
    shift=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    blur=0,
    noise=0,
    elastic=0,
    dropout=0,
)
GEOMETRIC = {
    "flip": True,
    "rotate_degrees": 30.0,
    "scale": (0.7, 1.4),
    "shift": 0.2,
    "stretch": 0.4,
    "elastic": 1,
}
PHOTOMETRIC = {
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.6,
    "hue": 0.2,
    "gamma": 0.6,
    "cast": 0.4,
    "uneven_light": 0.5,
    "stickers": 1,
    "pen_strokes": 1,
    "vignette": 1,
    "blur": 1,
    "noise": 1,
    "dropout": 1,
}


def draw_pair(size: tuple[int, int] = (64, 80), channels: int = 3) -> tuple[Any, Any]:
    """A smooth image whose first channel is bright exactly where the mask is 1."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    mask = ((rows - 28) ** 2 / 300 + (columns - 44) ** 2 / 120 < 1).astype(np.uint8)
    image = np.stack([40 + 50 * k + rows // 4 + columns // 8 for k in range(channels)], axis=2)
    image[..., 0] = np.where(mask, 230, 30)
    return image.clip(0, 255).astype(np.uint8), mask


def augment(config: AugmentConfig, seed: int, pair: Any = None, **kwargs: Any) -> tuple[Any, Any]:
    image, mask = draw_pair() if pair is None else pair
    size = kwargs.pop("image_size", SIZE)
    pipeline = build_augmentation(config, image_size=size, channels=image.shape[2])
    step = Albumentationsd(pipeline).set_random_state(seed=seed)
    item = step({"image": image, "mask": mask, "case_id": "a"})
    return item["image"], item["mask"]


def write_case(folder: Path, image: Any, mask: Any) -> dict[str, Any]:
    np.save(folder / "image.npy", image)
    np.save(folder / "mask.npy", mask)
    return {"image": folder / "image.npy", "mask": folder / "mask.npy", "case_id": "a"}


def read_global_states() -> tuple[Any, ...]:
    return (
        random.getstate(),
        np.random.get_state()[1].tolist(),  # noqa: NPY002
        torch.get_rng_state().tolist(),
    )


def test_disabled_augmentation_equals_evaluation_resizing() -> None:
    image, mask = draw_pair()
    for seed in range(5):
        changed = augment(OFF, seed)
        assert np.array_equal(changed[0], resize_image(image, SIZE))
        assert np.array_equal(changed[1], resize_mask(mask, SIZE))


@pytest.mark.parametrize("name", [*GEOMETRIC, *PHOTOMETRIC])
def test_each_setting_alone_changes_the_image(name: str) -> None:
    config = replace(OFF, **{name: {**GEOMETRIC, **PHOTOMETRIC}[name]})
    plain_image, plain_mask = augment(OFF, 0)
    results = [augment(config, seed) for seed in range(8)]
    assert len({image.tobytes() for image, _ in results}) > 4
    assert any(not np.array_equal(image, plain_image) for image, _ in results)
    masks_differ = any(not np.array_equal(mask, plain_mask) for _, mask in results)
    assert masks_differ == (name in GEOMETRIC)


def test_every_setting_is_covered_by_these_tests() -> None:
    # The border has a test of its own: alone it changes nothing.
    assert {*GEOMETRIC, *PHOTOMETRIC, "border"} == set(AugmentConfig.__dataclass_fields__)


def test_black_border_is_black_and_background() -> None:
    pair = np.full((48, 48, 3), 200, np.uint8), np.ones((48, 48), np.uint8)
    black = replace(OFF, scale=(0.5, 0.5), border="black")
    image, mask = augment(black, 0, pair)
    assert image[0, 0].max() == 0
    assert mask[0, 0] == 0
    image, mask = augment(replace(black, border="reflect"), 0, pair)
    assert image.min() == 200
    assert mask.min() == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_cast_is_one_gain_per_color(dtype: type) -> None:
    gray = np.full((48, 48, 3), 100 if dtype == np.uint8 else 0.4, dtype)
    image, _ = augment(replace(OFF, cast=0.4), 3, (gray, np.zeros((48, 48), np.uint8)))
    assert image.dtype == dtype
    assert (image == image[0, 0]).all()
    gains = np.log(image[0, 0] / gray[0, 0])
    assert np.abs(gains).max() < 0.41
    assert len(set(gains.tolist())) == 3


def test_uneven_light_is_smooth() -> None:
    gray = np.full((64, 64, 3), 0.4, np.float32)
    for seed in range(8):
        image, _ = augment(
            replace(OFF, uneven_light=0.25), seed, (gray, np.zeros((64, 64), np.uint8))
        )
        inside = image[(image > 0).all(2) & (image < 1).all(2)]
        assert len(inside)
        steps = np.abs(np.diff(np.log(np.maximum(image, 1e-3)), axis=0))
        assert steps.max() < 0.4


@pytest.mark.parametrize("channels", [1, 3])
def test_stickers_do_not_cover_the_center(channels: int) -> None:
    gray = np.full((64, 64, channels), 128, np.uint8)
    for seed in range(20):
        pair = (gray, np.zeros((64, 64), np.uint8))
        image, _ = augment(replace(OFF, stickers=1), seed, pair, image_size=(64, 64))
        changed = (image != 128).any(2)
        # A center lies 0.35 of the side from the middle at least, and an axis is 0.33 at most.
        assert not changed[31:33, 31:33].any()
        assert changed.mean() < 0.9


def test_pen_strokes_are_thin_and_blue_or_purple() -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    for seed in range(20):
        pair = (gray, np.zeros((64, 64), np.uint8))
        image, _ = augment(replace(OFF, pen_strokes=1), seed, pair, image_size=(64, 64))
        changed = (image != 128).any(2)
        assert changed.mean() < 0.5
        # From blue to purple the middle channel, green, is never the strongest.
        assert (image[changed].max(1) > image[changed][:, 1] - 1).all()


def test_vignette_darkens_the_corners_and_not_the_center() -> None:
    gray = np.full((64, 80, 3), 128, np.uint8)
    for seed in range(20):
        pair = (gray, np.zeros((64, 80), np.uint8))
        image, _ = augment(replace(OFF, vignette=1), seed, pair, image_size=(64, 80))
        assert (image[30:34, 38:42] == 128).all()
        assert (image <= 128).all()
        assert image[[0, 0, -1, -1], [0, -1, 0, -1]].min() < 40


def test_either_border_gives_black_in_some_images_and_reflection_in_others() -> None:
    gray = np.full((64, 64, 3), 128, np.uint8)
    pair = (gray, np.zeros((64, 64), np.uint8))
    config = replace(OFF, scale=(0.5, 0.5), border="either")
    has_black = {int(augment(config, seed, pair)[0].min()) == 0 for seed in range(12)}
    assert has_black == {True, False}


@pytest.mark.parametrize("name", GEOMETRIC)
def test_mask_moves_with_the_image(name: str) -> None:
    config = replace(OFF, **{name: GEOMETRIC[name]})
    for seed in range(8):
        image, mask = augment(config, seed)
        assert mask.max() == 1
        # The first channel is bright where the mask is 1; only the seam may disagree.
        assert np.mean((image[..., 0] > 130) == (mask == 1)) > 0.99


def test_flips_alone_reach_all_eight_orientations_exactly() -> None:
    config = replace(OFF, flip=True)
    pair = draw_pair((48, 48))
    seen = {augment(config, seed, pair)[0].tobytes() for seed in range(100)}
    image = pair[0]
    expected = set()
    for turns in range(4):
        turned = np.rot90(image, turns)
        expected |= {turned.tobytes(), turned[:, ::-1].tobytes()}
    assert len(expected) == 8
    assert seen == expected


@pytest.mark.parametrize("size", [(48, 48), (40, 64), (33, 97)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_any_number_of_channels_and_any_size_are_supported(
    size: tuple[int, int], channels: int
) -> None:
    config = AugmentConfig(blur=1, noise=1, elastic=1, dropout=1)
    image, mask = augment(config, 3, draw_pair(channels=channels), image_size=size)
    assert (image.shape, image.dtype) == ((*size, channels), np.uint8)
    assert (mask.shape, mask.dtype) == (size, np.uint8)


def test_class_indices_are_never_mixed() -> None:
    image, mask = draw_pair()
    config = AugmentConfig(elastic=1)
    for seed in range(10):
        _, changed = augment(config, seed, (image, mask * np.uint8(2)))
        assert set(np.unique(changed)) <= {0, 2}


def test_warp_without_rotation_keeps_the_center() -> None:
    # Half a pixel wrong in the matrix would shift a shrunken image; here it must stay symmetric.
    image = np.zeros((64, 64, 3), np.uint8)
    image[24:40, 24:40] = 200
    mask = (image[..., 0] > 0).astype(np.uint8)
    for zoom in (0.4, 0.9, 1.3, 2.0):
        changed, changed_mask = augment(replace(OFF, scale=(zoom, zoom)), 0, (image, mask))
        assert np.abs(changed.astype(int) - changed[::-1, ::-1]).max() <= 12
        assert np.array_equal(changed_mask, changed_mask[::-1, ::-1])
        inner = changed_mask[14:34, 14:34]  # without the reflections
        assert inner.sum() == pytest.approx(min(20, 16 * zoom * 48 / 64) ** 2, rel=0.35)


def test_rotation_by_90_degrees_rotates_the_image() -> None:
    pair = draw_pair((64, 64))
    step = WarpToSize((64, 64), flip=False, degrees=90, zoom=(1, 1), shift=0)
    step.py_random = type("Highest", (), {"uniform": staticmethod(max)})()
    params = step.get_params_dependent_on_data({"shape": pair[0].shape}, {})
    turned = step.apply(pair[0], **params)
    assert np.array_equal(turned, np.rot90(pair[0], -1))


def test_strong_shrinking_averages_instead_of_skipping_pixels() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    config = replace(OFF, rotate_degrees=1e-3)  # not the plain path
    image, _ = augment(config, 0, (stripes, stripes[..., 0] // 200), image_size=(64, 64))
    inner = image[4:-4, 4:-4].astype(int)
    assert np.abs(inner - 100).max() < 15


def test_border_reflects_image_and_mask() -> None:
    image, mask = draw_pair()
    mask[:] = 1
    config = replace(OFF, scale=(0.5, 0.5), shift=0.3, rotate_degrees=45)
    changed, changed_mask = augment(config, 1, (np.full_like(image, 90), mask))
    assert changed_mask.all()
    assert (changed == 90).all()


def test_rotation_and_brightness_are_independent() -> None:
    # With one seed for all transforms, as albumentations has it, they would move in step.
    config = replace(OFF, shift=0.3, brightness=0.5)
    pair = draw_pair()[0] * 0 + np.uint8(100), draw_pair()[1]
    results = [augment(config, seed, pair) for seed in range(60)]
    brightness = [float(image.mean()) for image, _ in results]
    place = [float(np.nonzero(mask)[1].mean()) for _, mask in results]
    assert np.std(brightness) > 5
    assert np.std(place) > 3
    assert abs(np.corrcoef(brightness, place)[0, 1]) < 0.4


def test_transform_returns_plain_tensors(tmp_path: Path) -> None:
    case = write_case(tmp_path, *draw_pair())
    chains = [
        training_transform(
            AugmentConfig(), image_size=SIZE, intensity=IntensityConfig(), channels=3
        ),
        evaluation_transform(SIZE, IntensityConfig(), 3),
    ]
    for chain in chains:
        item = chain(case)
        assert type(item["image"]) is type(item["mask"]) is torch.Tensor
        assert (item["image"].shape, item["image"].dtype) == ((3, *SIZE), torch.float32)
        assert (item["mask"].shape, item["mask"].dtype) == ((1, *SIZE), torch.int64)
        assert item["image"].is_contiguous()
        assert item["case_id"] == "a"


def test_training_without_augmentation_equals_evaluation(tmp_path: Path) -> None:
    case = write_case(tmp_path, *draw_pair())
    train = training_transform(OFF, image_size=SIZE, intensity=IntensityConfig(), channels=3)
    evaluate = evaluation_transform(SIZE, IntensityConfig(), 3)
    assert torch.equal(train(case)["image"], evaluate(case)["image"])
    assert torch.equal(train(case)["mask"], evaluate(case)["mask"])


def test_16_bit_images_are_augmented(tmp_path: Path) -> None:
    image, mask = draw_pair()
    deep = image.astype(np.uint16) * 257
    config = AugmentConfig(blur=1, noise=1, elastic=1, dropout=1)
    for channels, case in ((3, deep), (1, deep[..., :1])):
        chain = training_transform(
            config,
            image_size=SIZE,
            intensity=IntensityConfig(mean=(0,), std=(1,)),
            channels=channels,
        )
        item = chain.set_random_state(seed=1)(write_case(tmp_path, case, mask))
        assert item["image"].shape == (channels, *SIZE)
        assert 0 <= item["image"].min() < item["image"].max() <= 1
    plain = evaluation_transform(SIZE, IntensityConfig(mean=(0,), std=(1,)), 3)
    shallow = plain(write_case(tmp_path, image, mask))["image"]
    assert torch.allclose(plain(write_case(tmp_path, deep, mask))["image"], shallow, atol=0.003)


def test_additional_monai_transform_is_seeded(tmp_path: Path) -> None:
    case = write_case(tmp_path, *draw_pair())

    def build(*extra: Any) -> Compose:
        return training_transform(
            OFF, image_size=SIZE, intensity=IntensityConfig(), channels=3, extra=extra
        )

    def run(chain: Compose, seed: int) -> dict[str, Any]:
        result: dict[str, Any] = chain.set_random_state(seed=seed)(case)
        return result

    contrast = RandAdjustContrastd("image", prob=1, gamma=(0.5, 3))
    flip = RandFlipd(("image", "mask"), prob=0.5, spatial_axis=1)
    chain, plain = build(contrast, flip), build()
    first = [run(chain, seed) for seed in range(6)]
    again = [run(chain, seed) for seed in range(6)]
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one["image"], two["image"])
        assert torch.equal(one["mask"], two["mask"])
        assert not isinstance(one["image"], MetaTensor)
        assert not isinstance(one["mask"], MetaTensor)
    assert len({item["image"].numpy().tobytes() for item in first}) == 6
    assert len({item["mask"].numpy().tobytes() for item in first}) == 2
    assert not torch.equal(first[0]["image"], run(plain, 0)["image"])


def test_transform_can_be_rebuilt_from_its_steps(tmp_path: Path) -> None:
    chain = evaluation_transform(SIZE, IntensityConfig(), 3)
    flip = RandFlipd(("image", "mask"), prob=1, spatial_axis=1)
    longer = Compose([*chain.transforms[:-1], flip, chain.transforms[-1]])
    case = write_case(tmp_path, *draw_pair())
    assert torch.equal(longer(case)["image"], chain(case)["image"].flip(2))


def test_custom_pipeline_is_seeded() -> None:
    pipeline = build_augmentation(AugmentConfig(), image_size=SIZE, channels=3)
    step = Albumentationsd(pipeline)
    assert isinstance(step, Randomizable)
    image, mask = draw_pair()
    one = step.set_random_state(state=np.random.RandomState(5))({"image": image, "mask": mask})
    two = step.set_random_state(state=np.random.RandomState(5))({"image": image, "mask": mask})
    assert np.array_equal(one["image"], two["image"])


def test_no_global_random_state_is_used_or_changed(tmp_path: Path) -> None:
    case = write_case(tmp_path, *draw_pair())
    config = AugmentConfig(blur=1, noise=1, elastic=1, dropout=1)
    chain = training_transform(
        config,
        image_size=SIZE,
        intensity=IntensityConfig(),
        channels=3,
        extra=[RandAdjustContrastd("image", prob=1)],
    )
    results = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        before = read_global_states()
        results.append(chain.set_random_state(seed=7)(case)["image"])
        after = read_global_states()
        assert before == after
    assert torch.equal(*results)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "text", "archive"])
def test_damaged_copy_names_its_case_and_path(tmp_path: Path, damage: str) -> None:
    case = write_case(tmp_path, *draw_pair())
    path = case["image"]
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "archive":
        np.savez(path.with_suffix(".npz"), a=np.ones(3))
        path.with_suffix(".npz").replace(path)
    else:
        path.write_bytes({"cut": whole[:-5], "empty": b"", "text": b"hello"}[damage])
    with pytest.raises(ReadError, match="case a") as raised:
        LoadCachedd(("image", "mask"))(case)
    assert raised.value.path == path
    assert "\n" not in str(raised.value)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ReadError):
        load_cached(tmp_path / "a.npy", case_id="a")


def test_invalid_intensity_is_refused_when_the_transform_is_built() -> None:
    with pytest.raises(UsageError, match="3 values for images of 1 channel"):
        training_transform(OFF, image_size=SIZE, intensity=IntensityConfig(), channels=1)
    with pytest.raises(UsageError, match="3 values for images of 1 channel"):
        evaluation_transform(SIZE, IntensityConfig(), 1)


@pytest.mark.slow
def test_import_of_albumentations_gives_no_warning_and_no_version_check() -> None:
    # The version check runs at import, in a process of its own that has not been told to skip it.
    code = (
        "import socket\n"
        "def refuse(*_, **__): raise SystemExit('reached for the network')\n"
        "socket.getaddrinfo = socket.socket.connect = refuse\n"
        "import segnetr.data.augmentation.segmentation as t\n"
        "from segnetr.config.schema.segmentation import AugmentConfig\n"
        "t.build_augmentation(AugmentConfig(blur=1, noise=1, elastic=1, dropout=1),"
        " image_size=(32, 32), channels=3)\n"
        "import os; assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_no_argument_of_albumentations_is_ignored() -> None:
    # It warns of unknown argument names instead of refusing them.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for channels in (1, 3, 4):
            config = AugmentConfig(blur=1, noise=1, elastic=1, dropout=1)
            pipeline = build_augmentation(config, image_size=SIZE, channels=channels)
            for step in pipeline.transforms:
                assert not getattr(step, "invalid_args", [])
