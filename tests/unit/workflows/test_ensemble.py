"""Several models as one: mean, vote, and mean of weights; and what does not belong together."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig, SegNetrConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.engine.training.fold_dir import FoldDir, is_cross_validation
from segnetr.errors import ModelFileError, UsageError
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import ModelCard, read_model, write_model
from segnetr.workflows.prediction.ensemble import load_members, mix_members, write_soup
from segnetr.workflows.prediction.index import describe_model
from segnetr.workflows.prediction.model_folder import open_predictor, open_predictors


def make_model(folder: Path, seed: int, *, side: int = 32, **changes: object) -> Path:
    """Write a model of random weights."""
    card = ModelCard(
        architecture=SegNetrConfig(width=8, mixing="position"),
        classes=("background", "a", "b"),
        in_channels=3,
        image_size=(side, side),
        intensity=IntensityConfig(),
        predict=PredictConfig(mode="window"),
        scores={"validation_dice": 0.5},
    )
    card = replace(card, **changes)  # type: ignore[arg-type]
    torch.manual_seed(seed)
    network = build_model(
        card.architecture,
        in_channels=3,
        num_classes=len(card.classes),
        image_size=card.image_size,
    )
    write_model(folder, network.state_dict(), card=card)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        make_model(folder / "a", 1),
        make_model(folder / "b", 2),
        make_model(folder / "other", 3, side=48, architecture={"architecture": "unet", "width": 2}),
    ]


def image() -> ImageFile:
    values = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    return ImageFile(path=Path("a.png"), array=values, kind="image")


@pytest.mark.slow
def test_ensemble_of_different_sizes_returns_the_mean_of_the_probabilities(models) -> None:
    alone = [
        open_predictor(path, device="cpu")[1].predict(image(), keep_probabilities=True)
        for path in models
    ]
    card, joined = open_predictors(models, device="cpu")
    found = joined.predict(image(), keep_probabilities=True)
    expected = np.mean([each.probabilities for each in alone], axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-6)
    assert card.scores == {}
    _, voting = open_predictors(models, ensemble="vote", device="cpu")
    shares = voting.predict(image(), keep_probabilities=True).probabilities
    assert set(np.unique(np.rint(shares * 3))) <= {0, 1, 2, 3}


def test_ensemble_of_different_classes_or_channels_is_rejected(models, tmp_path) -> None:
    other = make_model(tmp_path / "o", 1, classes=("background", "a", "c"))
    with pytest.raises(ModelFileError, match=r"its classes 'background, a, c' differs from"):
        load_members([models[0], other])
    stranger = tmp_path / "none"
    with pytest.raises(ModelFileError, match="no such run or model folder"):
        load_members([models[0], stranger])


def test_soup_is_the_mean_of_the_weights(models, tmp_path) -> None:
    mixed = mix_members(models[:2])
    first, second = (read_model(path)[1] for path in models[:2])
    for name, value in mixed.network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (first[name] + second[name]) / 2)
        else:
            assert torch.equal(value, first[name])
    write_soup([models[0], models[0]], tmp_path / "same")
    for name, value in read_model(tmp_path / "same")[1].items():
        assert torch.equal(value, first[name])
    assert read_model(tmp_path / "same")[0].scores == {}


def test_soup_of_one_or_of_different_networks_is_rejected(models) -> None:
    with pytest.raises(ModelFileError, match=r"its architecture .* differs from"):
        mix_members([models[0], models[2]])
    with pytest.raises(UsageError, match="several models"):
        mix_members(models[:1])


def test_ensemble_has_its_own_hash(models) -> None:
    card, _ = read_model(models[0])
    one = describe_model(models[:1], card, "mean")
    both = describe_model(models[:2], card, "mean")
    assert "members" not in one
    assert both["members"][0]["sha256"] == one["sha256"]
    hashes = {
        described["sha256"]
        for described in (
            one, both, describe_model(models[:2], card, "vote"),
            describe_model(models[1::-1], card, "mean"),
        )
    }  # fmt: skip
    assert len(hashes) == 4


def test_folder_remembers_how_many_folds_it_is_for(tmp_path):
    home = FoldDir(tmp_path / "cv")
    assert not is_cross_validation(home.path)
    home.open(3)
    home.open(3)
    assert is_cross_validation(home.path)
    assert home.missing() == [1, 2, 3]
    with pytest.raises(UsageError, match="has 3 folds, not 5"):
        home.open(5)
    with pytest.raises(ModelFileError, match=r"0 of 3 folds are done.*fold-1"):
        home.models()


def test_invalid_index_and_a_run_without_folds_are_rejected(tmp_path):
    home = FoldDir(tmp_path)
    home.index.write_text(json.dumps({"format": "other", "folds": 3}))
    with pytest.raises(ModelFileError, match="not the index"):
        home.count()
    other = FoldDir(tmp_path / "run")
    other.run.last.mkdir(parents=True)
    with pytest.raises(UsageError, match="without folds"):
        other.open(3)
