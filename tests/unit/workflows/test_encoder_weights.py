"""What comes over from a classifier, a segmentation run or an official file."""

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor

import hybrid_backbones
from segnetr.config.schema.classification import ClassifyPredictConfig
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig, SegNetrConfig, UNetConfig
from segnetr.errors import ModelFileError, UsageError
from segnetr.models.build import build_model
from segnetr.outputs.models.classifier_file import ClassifierCard, write_classifier
from segnetr.storage.manifest import write_bytes
from segnetr.workflows.training.encoder_weights import find_transferable, load_encoder_weights

NAME = "mobile_former_26m"


def build(encoder: str = NAME, *, channels: int = 3, seed: int = 0):
    torch.manual_seed(seed)
    config = TypeAdapter(SegNetrConfig).validate_python(
        {"width": 8, "mixing": "position", "encoder": encoder}
    )
    return build_model(config, in_channels=channels, num_classes=2, image_size=(64, 64))


def classifier(seed: int = 1) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return hybrid_backbones.create_model(NAME, num_classes=4).state_dict()


def write_run(run: Path, state: dict[str, Tensor]) -> Path:
    """Write the model folder that a classifier's training leaves."""
    card = ClassifierCard(
        task="classification",
        backbone=NAME,
        classes=("a", "b", "c", "d"),
        num_classes=4,
        multi_label=False,
        in_channels=3,
        image_size=(64, 64),
        intensity=IntensityConfig(),
        fitting=ClassificationAugmentConfig(),
        predict=ClassifyPredictConfig(),
    )
    run.mkdir()
    write_classifier(run / "model", state, card=card)
    return run


@pytest.mark.slow
def test_classifiers_run_gives_all_but_its_head(tmp_path: Path) -> None:
    state = classifier()
    run = write_run(tmp_path / "run", state)
    for source in (run, run / "model", run / "model" / "model.safetensors"):
        model = build()
        report = load_encoder_weights(model, source)
        assert report.share == 1
        assert report.missing == ()
        encoder = find_transferable(model)
        assert encoder is not None
        assert report.unused
        assert all(key in state and key not in encoder.state_dict() for key in report.unused)
        for key, value in encoder.state_dict().items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(value, state[key]), key
    assert "100%" in report.lines()[0]


def test_segmentation_run_hands_its_encoder_on_and_keeps_its_decoder(tmp_path: Path) -> None:
    other = build(seed=3)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    model = build()
    report = load_encoder_weights(model, tmp_path / "model.safetensors")
    assert report.missing == ()
    first, second = find_transferable(model), find_transferable(other)
    assert first is not None
    assert second is not None
    wanted = second.state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in first.state_dict().items())
    assert not torch.equal(model.network.head.weight, other.network.head.weight)


def test_native_encoder_takes_the_encoder_of_another_run(tmp_path: Path) -> None:
    other = build("segnetr", seed=3)
    save_file(other.state_dict(), tmp_path / "model.safetensors")
    model = build("segnetr")
    assert load_encoder_weights(model, tmp_path / "model.safetensors").missing == ()
    one, two = model.network.encoder.state_dict(), other.network.encoder.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_official_layout_is_converted(tmp_path: Path) -> None:
    # The official Swin wraps its tensors, and its keys are those of `convert_published`.
    torch.manual_seed(4)
    small = {"embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    source = hybrid_backbones.create_model("swin_tiny", num_classes=4, **small)
    file = tmp_path / "swin.pth"
    torch.save({"model": {f"module.{k}": v for k, v in source.state_dict().items()}}, file)
    config = TypeAdapter(SegNetrConfig).validate_python(
        {"width": 8, "mixing": "position", "encoder": "swin_tiny", "encoder_settings": small}
    )
    model = build_model(config, in_channels=3, num_classes=2, image_size=(64, 64))
    report = load_encoder_weights(model, file)
    assert report.share >= 0.9
    assert not any(key.startswith("layers") for key in report.missing)


def test_first_convolution_is_fitted_to_other_channels(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classifier())
    report = load_encoder_weights(build(channels=1), run)
    assert report.missing == ()
    assert any("3 channels in the file, 1 here" in note for note in report.notes)


def test_partial_weights_are_rejected_with_their_keys_unless_accepted(tmp_path: Path) -> None:
    state = classifier()
    half = dict(list(state.items())[: len(state) // 2])
    file = tmp_path / "half.safetensors"
    save_file(half, file)
    model = build()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"tensors matched.*missing.*--accept-partial") as caught:
        load_encoder_weights(model, file)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert 0 < load_encoder_weights(model, file, accept_partial=True).share < 0.9


def test_weights_without_any_match_are_rejected_even_if_partial_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"something.weight": torch.zeros(3)}, file)
    with pytest.raises(UsageError, match=r"0 of \d+ tensors matched"):
        load_encoder_weights(build(), file, accept_partial=True)


@pytest.mark.slow
def test_changed_run_missing_file_and_pickled_code_are_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", classifier())
    weights = run / "model" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    write_bytes(weights, bytes(data))
    hostile = tmp_path / "hostile.pth"
    hostile.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for source in (run, tmp_path / "nowhere", hostile):
        with pytest.raises(ModelFileError) as caught:
            load_encoder_weights(build(), source)
        assert "\n" not in str(caught.value)


def test_network_without_an_encoder_says_so(tmp_path: Path) -> None:
    unet = build_model(UNetConfig(width=4), in_channels=3, num_classes=2, image_size=(64, 64))
    with pytest.raises(UsageError, match="no separate encoder"):
        load_encoder_weights(unet, tmp_path)
