"""The recipes of classifiers: each is a valid configuration of a registered network."""

from pathlib import Path

import pytest
import yaml

from hybrid_backbones import list_models
from segnetr.config.load import list_recipes, parse_plain
from segnetr.config.schema.classification import ClassifyConfig, load_classify_config
from segnetr.config.schema.classification_recipe import (
    ClassificationAugmentConfig,
    MixingConfig,
    RegularizationConfig,
)
from segnetr.errors import UsageError

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "classify"
NAMES = list_recipes("classify")
FAMILIES = {
    "cmt", "cvt", "moa", "mobile_former", "mobilevit", "swin", "vitae", "vitae_v2",
}  # fmt: skip
IMAGES = 1_281_167


def test_every_family_has_its_imagenet_recipe() -> None:
    assert {name.removesuffix("_imagenet") for name in NAMES if "_imagenet" in name} == FAMILIES
    assert {"imagenet", "cifar", "small"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_a_valid_configuration_of_a_known_network(name: str) -> None:
    config = load_classify_config([f"classify/{name}"])
    assert config.backbone.name in list_models()
    assert config.train.warmup_steps > 0
    # Every section that a recipe names exists, so no setting falls back to its default silently.
    sections = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    sections.pop("extends", None)
    assert set(sections) <= set(ClassifyConfig.__dataclass_fields__)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_names_its_source(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    if "_imagenet" in name:
        assert "arXiv:" in text
        assert "official code" in text
        assert "Not documented there" in text or "not documented there" in text


@pytest.mark.parametrize("name", [name for name in NAMES if "imagenet" in name])
def test_a_step_of_the_imagenet_recipes_has_1024_images(name: str) -> None:
    train = load_classify_config([f"classify/{name}"]).train
    assert train.batch_size * train.accumulate == 1024
    assert train.optimizer == "adamw"
    steps = -(-IMAGES // 1024)
    assert train.warmup_steps in (20 * steps, 3000)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("moa", {"lr": 0.0009 * 1024 / 512, "epochs": 300, "weight_decay": 0.05, "clip_norm": 5}),
        ("mobilevit", {"lr": 0.002, "epochs": 300, "weight_decay": 0.01, "ema_decay": 0.9995}),
        ("mobile_former", {"lr": 0.001, "epochs": 450, "weight_decay": 0.2}),
        ("cmt", {"epochs": 300, "image_size": (224, 224)}),
    ],
)
def test_recipes_contain_the_published_settings(name: str, figures: dict[str, object]) -> None:
    train = load_classify_config([f"classify/{name}_imagenet"]).train
    for key, value in figures.items():
        assert getattr(train, key) == pytest.approx(value), key


@pytest.mark.parametrize(
    ("schema", "data", "word"),
    [
        (ClassificationAugmentConfig, {"crop_scale": [0.9, 0.2]}, "ends below"),
        (ClassificationAugmentConfig, {"crop_scale": [0, 1]}, "greater than 0"),
        (ClassificationAugmentConfig, {"randaugment_magnitude": 11}, "less than or equal to 10"),
        (ClassificationAugmentConfig, {"erasing_mode": "noise"}, "'pixel'"),
        (MixingConfig, {"mixup_alfa": 0.2}, "mixup_alfa"),
        (MixingConfig, {"probability": 1.5}, "less than or equal to 1"),
        (RegularizationConfig, {"layer_decay": 0}, "greater than 0"),
        (RegularizationConfig, {"class_weights": [1, 0]}, "greater than 0"),
        (RegularizationConfig, {"label_smoothing": 1}, "less than 1"),
    ],
)
def test_invalid_settings_are_rejected_in_one_line(schema, data, word) -> None:
    with pytest.raises(UsageError, match=word) as error:
        parse_plain(schema, data)
    assert "\n" not in str(error.value)


def test_class_weights_are_a_keyword_or_numbers() -> None:
    assert parse_plain(RegularizationConfig, {"class_weights": [1, 2.5]}).class_weights == (1, 2.5)
    assert parse_plain(RegularizationConfig, {"class_weights": "balanced"}).class_weights
