"""Predicted quality of a mask: features of one forward pass, maps, flags and the file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig, SegNetrConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.engine.quality.embedding import find_deepest_level
from segnetr.engine.quality.estimator import Quality, QualityModel, combine_quality
from segnetr.engine.quality.feature_collector import FeatureCollector, FeatureConfig, ImageFeatures
from segnetr.engine.quality.fitting import KnownCase, TemperatureFit, fit_quality_model
from segnetr.engine.quality.intensity_statistics import IntensityStatistics
from segnetr.engine.quality.probability_features import FEATURES, VIEWS_FEATURE, ProbabilityFeatures
from segnetr.errors import ModelFileError
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import ModelCard, read_model, write_model
from segnetr.outputs.models.quality_file import (
    CLOUDS_NAME,
    QUALITY_NAME,
    add_quality,
    has_quality,
    read_quality,
)
from segnetr.storage.manifest import write_manifest
from segnetr.workflows.prediction.model_folder import open_predictor, open_predictors
from segnetr.workflows.prediction.model_quality import find_obstacle, wants_quality


class Blurred(nn.Module):
    """A network of two levels whose answers depend on the place, so that views differ."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 2, stride=2)
        self.up = nn.ConvTranspose2d(4, classes, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        answer: Tensor = self.up(self.down(image).tanh()) * 3
        return answer


def make_network(classes: int = 2) -> Blurred:
    torch.manual_seed(7)
    return Blurred(classes)


def make_predictor(classes: int = 2, **changes: Any) -> Predictor:
    return Predictor(
        make_network(classes),
        config=PredictConfig(**{"tta": "flips", **changes}),
        intensity=IntensityConfig(),
        image_size=(32, 32),
        num_classes=classes,
        channels=3,
    )


def image(seed: int = 0, size: tuple[int, int] = (40, 50)) -> ImageFile:
    values = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return ImageFile(path=Path(f"{seed}.png"), array=values, kind="image")


def volume(seed: int = 0, **facts: Any) -> ImageFile:
    values = np.random.default_rng(seed).integers(0, 256, (36, 34, 3), dtype=np.uint8)
    known = {"affine": np.eye(4), "spacing": (1.0, 1.0, 1.0), **facts}
    return ImageFile(path=Path(f"{seed}.nii"), array=values, kind="volume", **known)


def make_map(classes: int, size: tuple[int, int], seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    return (torch.randn(classes, *size) * 3).softmax(dim=0)


def gather(answer: Tensor, steps: list[int], **changes: Any) -> dict[str, float]:
    settings = {"num_classes": 2, "temperature": 1.0, "background": 1.0, "views": 1}
    features = ProbabilityFeatures(tuple(answer.shape[1:]), **{**settings, **changes})
    top = 0
    for rows in steps:
        features.update(top, answer[:, top : top + rows])
        top += rows
    return features.result()


def test_features_do_not_depend_on_the_size_of_the_bands():
    answer = make_map(3, (30, 20))
    whole = gather(answer, [30], num_classes=3, temperature=1.7)
    assert gather(answer, [7, 20, 3], num_classes=3, temperature=1.7) == pytest.approx(whole)


def test_expected_dice_is_one_for_a_certain_mask_and_lower_for_an_uncertain_one():
    certain = torch.zeros(2, 16, 16)
    certain[1, 4:12, 4:12] = 1
    certain[0] = 1 - certain[1]
    found = gather(certain, [16])
    assert found["expected_dice"] == pytest.approx(1)
    assert found["entropy"] == pytest.approx(0, abs=1e-6)
    assert found["largest_piece"] == 1
    doubtful = certain * 0.4 + 0.3
    assert gather(doubtful, [16])["expected_dice"] < 0.7
    assert gather(doubtful, [16], temperature=5.0)["entropy"] > gather(doubtful, [16])["entropy"]


def test_features_reflect_two_components_and_a_ragged_border():
    certain = torch.zeros(2, 16, 16)
    certain[1, 2:6, 2:6] = 1
    certain[1, 10:12, 10:12] = 1
    certain[0] = 1 - certain[1]
    found = gather(certain, [16])
    assert found["largest_piece"] == pytest.approx(16 / 20)
    assert found["foreground_share"] == pytest.approx(np.log10(20 / 256))
    strict = gather(certain * 0.98 + 0.01, [16], background=1e6)
    assert strict["foreground_share"] == -4  # the background wins everywhere


def test_empty_mask_gives_finite_features():
    found = gather(torch.tensor([1.0, 0.0])[:, None, None].expand(2, 8, 8), [8])
    assert all(np.isfinite(value) for value in found.values())
    assert found["expected_dice"] == 0


def test_view_agreement_is_the_mean_soft_dice_of_all_pairs_of_augmentations():
    views = torch.stack([make_map(2, (12, 12), seed) for seed in range(4)])
    mean = views.mean(dim=0)
    spread = 0.5 * views.var(dim=0, correction=0).sum(dim=0, keepdim=True)
    found = gather(torch.cat([mean, spread]), [12], views=4)[VIEWS_FEATURE]
    said = views[:, 1].flatten(1)
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    shared = torch.stack([(said[i] * said[j]).sum() for i, j in pairs]).mean()
    assert found == pytest.approx(float(shared / said.square().sum(dim=1).mean()), rel=1e-4)


@pytest.mark.parametrize("mode", ["resize", "window"])
def test_collecting_features_changes_neither_labels_nor_probabilities(mode):
    plain = make_predictor(mode=mode).predict(image(), keep_probabilities=True)
    watched = make_predictor(mode=mode)
    collector = FeatureCollector(FeatureConfig(level="down", temperature=2.0))
    seen: Prediction = watched.predict(
        image(), keep_probabilities=True, keep_uncertainty=True, hooks=[collector]
    )
    assert np.array_equal(plain.labels, seen.labels)
    assert np.array_equal(plain.probabilities, seen.probabilities)
    features = collector.result("image", None)
    assert set(features.features) == {*FEATURES, VIEWS_FEATURE}
    assert features.embedding.shape == (4,)
    assert plain.uncertainty is None
    assert not watched.networks[0].model.down._forward_hooks  # the hook was removed


def test_uncertainty_maps_are_the_entropy_of_the_mean_and_the_variance_over_augmentations():
    predictor = make_predictor()
    square = image(size=(32, 32))
    found = predictor.predict(square, keep_probabilities=True, keep_uncertainty=True)
    assert found.uncertainty is not None
    said = found.probabilities.astype(np.float64)
    entropy = -(said * np.log(said)).sum(axis=0) / np.log(2)
    assert np.allclose(found.uncertainty.entropy, entropy, atol=1e-5)
    views = []
    for axes in ((), (1,), (0,), (0, 1)):
        mirrored = replace(
            square, array=np.flip(square.array, axes).copy() if axes else square.array
        )
        answer = make_predictor(tta="none").predict(mirrored, keep_probabilities=True)
        views.append(np.flip(answer.probabilities[1], axes) if axes else answer.probabilities[1])
    assert np.allclose(found.uncertainty.variance, np.var(views, axis=0), atol=1e-5)
    assert found.uncertainty.variance.max() > 1e-4


def test_variance_needs_several_augmentations_or_networks():
    alone = make_predictor(tta="none").predict(image(), keep_uncertainty=True).uncertainty
    assert alone is not None
    assert alone.variance is None
    torch.manual_seed(1)
    other = make_predictor(tta="none")
    with torch.no_grad():
        other.networks[0].model.up.weight.mul_(-1)
    both = Predictor.ensemble([make_predictor(tta="none"), other])
    found = both.predict(image(), keep_uncertainty=True, keep_probabilities=True)
    assert found.uncertainty is not None
    first, second = (
        each.predict(image(), keep_probabilities=True).probabilities[1]
        for each in (make_predictor(tta="none"), other)
    )
    assert np.allclose(found.uncertainty.variance, ((first - second) / 2) ** 2, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 2])
def test_uncertainty_maps_of_a_volume_are_on_its_grid(axis):
    predictor = make_predictor(mode="window", overlap=0.25)
    predictor.networks[0].slices = replace(predictor.networks[0].slices, axis=axis)
    found = predictor.predict(volume(), keep_uncertainty=True, keep_probabilities=True)
    assert found.uncertainty is not None
    assert found.uncertainty.entropy.shape == found.labels.shape == (36, 34, 3)
    said = found.probabilities.astype(np.float64)
    entropy = -(said * np.log(said)).sum(axis=0) / np.log(2)
    assert np.allclose(found.uncertainty.entropy, entropy, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"architecture": "segnetr", "width": 8}, {"architecture": "unet", "width": 2},
     {"architecture": "basic_unet", "features": [4, 4, 8, 8, 16, 4]}],
    ids=lambda settings: settings["architecture"],
)  # fmt: skip
def test_deepest_level_is_found_in_any_architecture(settings):
    card = make_card(architecture=settings)
    network = build_model(card.architecture, in_channels=3, num_classes=2, image_size=(32, 32))
    network.eval()
    level = find_deepest_level(network, channels=3, image_size=(32, 32))
    assert level is not None
    shapes = []
    network.get_submodule(level).register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    with torch.inference_mode():
        network(torch.rand(1, 3, 32, 32))
    assert shapes[0][2:] == (2, 2)


# What is fitted, and what it says.


def observe(count: int, seed: int = 0, **facts: Any) -> list[ImageFeatures]:
    source = np.random.default_rng(seed)
    seen = []
    for _ in range(count):
        expected = source.uniform(0.5, 0.95)
        values = source.random(len(FEATURES)).tolist()
        features = {**dict(zip(FEATURES, values, strict=True)), "expected_dice": float(expected)}
        seen.append(
            ImageFeatures(
                **{
                    "kind": "image",
                    "spacing": None,
                    "features": features,
                    "intensity": source.normal(size=11),
                    "embedding": source.normal(size=6),
                    **facts,
                }
            )
        )
    return seen


def know(seen: list[ImageFeatures]) -> list[KnownCase]:
    return [
        KnownCase(
            case_id=f"c{number}",
            group=f"c{number}",
            features=one,
            dice=float(np.clip(one.features["expected_dice"] - 0.1, 0, 1)),
        )
        for number, one in enumerate(seen)
    ]


def fit_model(**facts: Any) -> QualityModel:
    return fit_quality_model(
        observe(30, 1, **facts),
        know(observe(20, 2, **facts)),
        level="down",
        temperature=1.5,
        views=1,
    )


def test_model_predicts_the_dice_and_an_interval_around_it():
    model = fit_model()
    for seen in observe(10, 5):
        quality = model.estimate(seen)
        assert quality.dice == pytest.approx(seen.features["expected_dice"] - 0.1, abs=0.03)
        assert 0 <= quality.low <= quality.dice <= quality.high <= 1
        assert quality.level == 0.9


def test_few_cases_give_a_lower_level_and_too_few_an_error():
    known = know(observe(20, 2))
    settings: dict[str, Any] = {"level": "down", "temperature": 1.0, "views": 1}
    assert fit_quality_model(observe(9), known[:5], **settings).interval_level == 0.8
    with pytest.raises(ValueError, match="too few for an interval"):
        fit_quality_model(observe(9), known[:3], **settings)
    one_patient = [replace(case, group=f"p{number // 5}") for number, case in enumerate(known)]
    # Twenty cases of four patients are four draws.
    assert fit_quality_model(observe(9), one_patient, **settings).interval_level == 0.8


def test_image_of_another_kind_brightness_or_embedding_is_ood_with_a_reason():
    model = fit_model()
    (usual,) = observe(1, 8)
    assert not model.estimate(usual).is_ood
    dark = model.estimate(replace(usual, intensity=usual.intensity + 9))
    assert dark.is_ood
    assert dark.ood_score > 1
    assert dark.reasons[0].startswith("intensity ")
    deep = model.estimate(replace(usual, embedding=usual.embedding + 9))
    assert [reason.split()[0] for reason in deep.reasons] == ["embedding"]
    other = model.estimate(replace(usual, kind="volume"))
    assert other.reasons[0] == "a volume, trained on images"
    assert other.ood_score > 1


def test_spacing_outside_the_range_of_the_training_set_is_ood():
    model = fit_model(kind="volume", spacing=(1.0, 1.0, 5.0))
    (usual,) = observe(1, 8, kind="volume", spacing=(1.1, 1.0, 4.5))
    assert not model.estimate(usual).is_ood
    thin = model.estimate(replace(usual, spacing=(1.0, 1.0, 1.0)))
    assert thin.reasons == ("spacing 1 x 1 x 1 mm",)
    assert model.estimate(replace(usual, spacing=None)).reasons == ("spacing not known",)


def test_calibration_case_gets_its_out_of_fold_prediction():
    model = fit_model()
    case = model.cases[3]
    told = Quality(dice=0.1, low=0, high=0.2, level=0.9, is_ood=False, ood_score=0.5)
    assert model.out_of_fold(case.case_id, told).dice == case.predicted
    assert model.out_of_fold("another", told) is told


def test_quality_of_an_ensemble_is_the_mean_and_a_majority_decides_ood():
    calm = Quality(dice=0.8, low=0.7, high=0.9, level=0.9, is_ood=False, ood_score=0.5)
    loud = replace(calm, dice=0.5, low=0.4, high=0.6, level=0.8, is_ood=True, reasons=("x",))
    both = combine_quality([calm, loud])
    assert both.dice == pytest.approx(0.65)
    assert (both.level, both.is_ood, both.reasons) == (0.8, False, ())
    most = combine_quality([calm, loud, loud])
    assert most.is_ood
    assert most.reasons == ("2 of 3 models", "x")


def test_temperature_weights_small_and_large_cases_equally():
    fit = TemperatureFit()
    fit.add(make_map(2, (4, 4)).numpy(), np.zeros((4, 4), dtype=np.uint8))
    fit.add(make_map(2, (300, 300)).numpy(), make_map(2, (300, 300)).argmax(0).numpy().astype("u1"))
    assert fit.result() > 1  # by pixels the second, which is right everywhere, would rule


# The file of it.


def make_card(**changes: Any) -> ModelCard:
    settings: dict[str, Any] = {
        "architecture": SegNetrConfig(width=8, mixing="position"),
        "classes": ("background", "a"),
        "in_channels": 3,
        "image_size": (32, 32),
        "intensity": IntensityConfig(),
        "predict": PredictConfig(),
    }
    return ModelCard(**{**settings, **changes})


def write_folder(folder: Path, *, with_quality: bool = True) -> Path:
    torch.manual_seed(0)
    card = make_card()
    network = build_model(card.architecture, in_channels=3, num_classes=2, image_size=(32, 32))
    write_model(folder, network.state_dict(), card=card)
    if with_quality:
        level = find_deepest_level(network.eval(), channels=3, image_size=(32, 32))
        assert level is not None
        width = network.get_submodule(level)
        found: list[int] = []
        handle = width.register_forward_hook(lambda _m, _i, out: found.append(out.shape[1]))
        with torch.inference_mode():
            network(torch.rand(1, 3, 32, 32))
        handle.remove()
        source = np.random.default_rng(0)
        seen = [replace(one, embedding=source.normal(size=found[0])) for one in observe(30, 1)]
        known = know(
            [replace(one, embedding=source.normal(size=found[0])) for one in observe(9, 2)]
        )
        add_quality(folder, fit_quality_model(seen, known, level=level, temperature=1.25, views=1))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("quality") / "model")


def test_quality_model_is_read_back_exactly_and_the_weights_do_not_change(folder, tmp_path):
    plain = write_folder(tmp_path / "plain", with_quality=False)
    for name in ("model.safetensors", "model.json"):
        assert (plain / name).read_bytes() == (folder / name).read_bytes()
    assert (has_quality(folder), has_quality(plain)) == (True, False)
    first = read_quality(folder)
    add_quality(plain, first)
    again = read_quality(plain)
    for name in (QUALITY_NAME, CLOUDS_NAME):
        assert (plain / name).read_bytes() == (folder / name).read_bytes()
    (seen,) = observe(
        1, 3, embedding=np.zeros(len(first.ood_detector.densities["embedding"].center))
    )
    assert again.estimate(seen) == first.estimate(seen)
    assert read_model(plain)[0] == read_model(folder)[0]


def test_predictor_estimates_quality_unless_disabled(folder):
    _, predictor = open_predictor(folder, device="cpu")
    quality = predictor.predict(image()).quality
    assert quality is not None
    assert 0 <= quality.dice <= 1
    _, silent = open_predictor(folder, changes={"quality": False}, device="cpu")
    assert silent.predict(image()).quality is None


@pytest.mark.slow
def test_quality_of_an_ensemble_needs_quality_models_of_all_members(folder, tmp_path):
    twin = write_folder(tmp_path / "twin")
    plain = write_folder(tmp_path / "plain", with_quality=False)
    _, both = open_predictors([folder, twin], device="cpu")
    _, alone = open_predictor(folder, device="cpu")
    together, single = both.predict(image()).quality, alone.predict(image()).quality
    assert together is not None
    assert together.dice == pytest.approx(single.dice)
    _, mixed = open_predictors([folder, plain], device="cpu")
    assert mixed.predict(image()).quality is None
    obstacle = find_obstacle([folder, plain], ensemble="mean", changes={})
    assert obstacle is not None
    assert str(plain) in obstacle
    assert "soup" in (find_obstacle([folder, twin], ensemble="soup", changes={}) or "")


def test_settings_that_change_masks_disable_quality_with_a_message(folder):
    assert find_obstacle([folder], ensemble="mean", changes={"window_batch": 2}) is None
    assert (
        find_obstacle([folder], ensemble="mean", changes={"tta": "none", "postprocessing": []})
        is None
    )
    line = find_obstacle([folder], ensemble="mean", changes={"tta": "flips"})
    assert line == "no predicted Dice: it is calibrated for predict.tta=none, not flips"
    _, predictor = open_predictor(folder, changes={"tta": "flips"}, device="cpu")
    assert predictor.predict(image()).quality is None
    assert wants_quality([folder], {})
    assert not wants_quality([folder], {"quality": False})


def reseal(folder: Path) -> None:
    (folder / "MANIFEST.sha256").unlink()
    write_manifest(folder)


def test_changed_byte_is_rejected(tmp_path):
    broken = write_folder(tmp_path / "model")
    path = broken / QUALITY_NAME
    path.write_bytes(path.read_bytes().replace(b"1.25", b"1.26"))
    with pytest.raises(ModelFileError, match="differ from"):
        open_predictor(broken, device="cpu")


@pytest.mark.parametrize(
    ("key", "value"),
    [("temperature", 0), ("scale", [0.0] * 6), ("features", ["entropy"]), ("radius", "1"),
     ("kind", "audio"), ("unknown", 1), ("spacing_factor", 0.5), ("limits", {"embedding": 1.0})],
)  # fmt: skip
def test_invalid_quality_json_with_a_valid_manifest_is_rejected_in_one_line(tmp_path, key, value):
    broken = write_folder(tmp_path / "model")
    path = broken / QUALITY_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    reseal(broken)
    with pytest.raises(ModelFileError) as caught:
        read_quality(broken)
    assert "\n" not in str(caught.value)
    assert "quality" in str(caught.value)


@pytest.mark.parametrize("issue", ["missing", "nan", "shape", "zero", "torn"])
def test_invalid_densities_with_a_valid_manifest_are_rejected_in_one_line(tmp_path, issue):
    broken = write_folder(tmp_path / "model")
    path = broken / CLOUDS_NAME
    clouds = safetensors.numpy.load(path.read_bytes())
    if issue == "missing":
        del clouds["embedding.rest"]
    elif issue == "nan":
        clouds["intensity.center"] = clouds["intensity.center"] * np.nan
    elif issue == "shape":
        clouds["embedding.axes"] = clouds["embedding.axes"][:, :-1].copy()
    elif issue == "zero":
        clouds["intensity.lengths"] = clouds["intensity.lengths"] * 0
    content = safetensors.numpy.save(clouds)
    path.write_bytes(content[:50] if issue == "torn" else content)
    reseal(broken)
    with pytest.raises(ModelFileError, match=r"quality\.safetensors") as caught:
        read_quality(broken)
    assert "\n" not in str(caught.value)


def test_level_that_the_network_lacks_is_rejected(tmp_path):
    broken = write_folder(tmp_path / "model")
    path = broken / QUALITY_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "level": "network.nowhere"}))
    reseal(broken)
    _, predictor = open_predictor(broken, device="cpu")
    with pytest.raises(ModelFileError, match=r"no level 'network\.nowhere'"):
        predictor.predict(image())


def test_intensity_statistics_detect_color_and_do_not_depend_on_the_dtype():
    color = np.random.default_rng(0).integers(20, 256, (40, 40, 3), dtype=np.uint8)
    gray = color.mean(axis=2, keepdims=True).round().astype(np.uint8)
    looks = {}
    for name, values in (("color", color), ("gray", gray), ("gray x 3", gray.repeat(3, axis=2)),
                         ("16 bit", color.astype(np.uint16) * 257)):  # fmt: skip
        appearance = IntensityStatistics(3)
        appearance.update(values)
        looks[name] = appearance.result()
    assert np.allclose(looks["color"], looks["16 bit"])
    assert np.array_equal(looks["gray"], looks["gray x 3"])
    assert looks["gray"][9] == 0 < looks["color"][9]
    assert looks["color"].shape == (11,)
