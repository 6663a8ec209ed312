"""The model folder of a classifier, and weights from which a training can start."""

import json
import os
import pickle
import shutil

import pytest
import torch

from hybrid_backbones import create_model
from segnetr.config.schema.classification import (
    BackboneConfig,
    ClassifyPredictConfig,
    load_classify_config,
)
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.segmentation import IntensityConfig
from segnetr.errors import ModelFileError, UsageError
from segnetr.outputs.models.classifier_file import (
    ClassifierCard,
    is_classifier,
    load_classifier,
    read_classifier,
    write_classifier,
)
from segnetr.storage.manifest import write_manifest
from segnetr.workflows.classification.network import (
    build_backbone,
    check_backbone,
    load_pretrained,
    load_run_weights,
)

NAME = "mobilevit_xxs"


def make_card(**changed) -> ClassifierCard:
    content = {
        "task": "classification",
        "backbone": NAME,
        "classes": ("a", "b", "c"),
        "num_classes": 3,
        "multi_label": False,
        "in_channels": 1,
        "image_size": (32, 32),
        "intensity": IntensityConfig(mean=(0.5,), std=(0.25,)),
        "fitting": ClassificationAugmentConfig(),
        "predict": ClassifyPredictConfig(),
    }
    return ClassifierCard(**{**content, **changed})


def build(classes: int = 3, channels: int = 1, name: str = NAME):
    return build_backbone(
        BackboneConfig(name=name), in_channels=channels, num_classes=classes, drop_path=None
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run") / "model"
    network = build().eval()
    write_classifier(folder, network.state_dict(), card=make_card())
    return folder, network


def change_card(folder, tmp_path, **changed):
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    card = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps({**card, **changed}))
    write_manifest(copy)
    return copy


def test_classifier_round_trip_uses_backbone_names(written):
    folder, network = written
    card, loaded = load_classifier(folder)
    assert card == make_card()
    image = torch.randn(2, 1, 32, 32)
    assert torch.equal(loaded(image), network(image))
    _, weights = read_classifier(folder)
    assert weights.keys() == create_model(NAME, in_channels=1, num_classes=3).state_dict().keys()


def test_card_distinguishes_classifiers_from_other_models(written, tmp_path):
    folder, _ = written
    assert is_classifier(folder)
    assert is_classifier(folder.parent)
    assert not is_classifier(change_card(folder, tmp_path, task="other"))
    assert not is_classifier(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"num_classes": 4}, "3 class names for 4"),
        ({"classes": ["a", "a", "b"]}, "named twice"),
        ({"backbone": "mobilevit_xs"}, "fewer weights|architecture"),
        ({"backbone": "mobilevit"}, "unknown backbone 'mobilevit'"),
        ({"overrides": {"headz": 3}}, "no setting 'headz'"),
        ({"in_channels": 3}, "architecture"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_error_for_invalid_classifier_card_is_one_line(written, tmp_path, changed, words):
    copy = change_card(written[0], tmp_path, **changed)
    with pytest.raises(ModelFileError, match=words) as caught:
        load_classifier(copy)
    assert "\n" not in str(caught.value)


def test_one_flipped_byte_is_rejected(written, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(written[0], copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-9] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        load_classifier(copy)


def test_training_starts_from_a_run_and_skips_a_different_head(written):
    folder, network = written
    same, other = build(), build(classes=5)
    assert load_run_weights(same, folder) == []
    assert all(torch.equal(v, network.state_dict()[k]) for k, v in same.state_dict().items())
    notes = load_run_weights(other, folder)
    assert len(notes) == 2
    assert "3 classes in the file, 5 here" in notes[0]
    stem = next(iter(network.state_dict()))
    assert torch.equal(other.state_dict()[stem], network.state_dict()[stem])


@pytest.mark.parametrize("network", [("mobilevit_xs", 1), (NAME, 3)])
def test_error_for_weights_of_another_backbone_is_one_line(written, network):
    with pytest.raises(ModelFileError, match=f"of {NAME} and do not fit") as caught:
        load_run_weights(build(name=network[0], channels=network[1]), written[0])
    assert "\n" not in str(caught.value)


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("trace-of-hostile-code",)


@pytest.mark.slow
def test_error_for_damaged_unrelated_or_hostile_checkpoint_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "whole.pth"
    torch.save({"model": create_model(NAME).state_dict()}, whole)
    assert "1000 classes in the file, 3 here" in " ".join(load_pretrained(build(channels=3), whole))
    torn = tmp_path / "torn.pth"
    torn.write_bytes(whole.read_bytes()[:5000])
    foreign = tmp_path / "foreign.pth"
    torch.save(create_model("cvt_13", num_classes=2).state_dict(), foreign)
    hostile = tmp_path / "hostile.pth"
    hostile.write_bytes(pickle.dumps({"model": Hostile()}, protocol=2))
    packed = tmp_path / "packed.pth"
    torch.save({"model": Hostile()}, packed)
    for path, words in (
        (torn, "torn"),
        (foreign, "does not fit"),
        (hostile, "holds Python objects|torn"),
        (packed, "holds Python objects"),
        (tmp_path / "gone.pth", "no such checkpoint"),
    ):
        with pytest.raises(ModelFileError, match=words) as caught:
            load_pretrained(build(channels=3), path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert not (tmp_path / "trace-of-hostile-code").exists()


@pytest.mark.slow
def test_error_for_checkpoint_of_another_network_names_the_likely_network(tmp_path):
    path = tmp_path / "x.pth"
    torch.save(create_model("mobilevit_xs", num_classes=7).state_dict(), path)
    with pytest.raises(ModelFileError, match="looks like mobilevit_xs"):
        load_pretrained(build(channels=3), path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["backbone.name=mobilvit_xxs"], "did you mean 'mobilevit_xxs'"),
        (["backbone.name=moa_cifar_tiny"], "32 x 32 pixels, not 224 x 224"),
        (["train.batch_size=1"], "two images"),
    ],
)
def test_invalid_backbone_is_rejected_before_the_data_is_read(settings, words):
    with pytest.raises(UsageError, match=words):
        check_backbone(load_classify_config(assignments=settings))


def test_backbone_for_small_images_accepts_them():
    settings = ["backbone.name=moa_cifar_tiny", "train.image_size=32"]
    check_backbone(load_classify_config(assignments=settings))


def test_overrides_reach_the_network_and_errors_name_misspelled_ones():
    narrow = build_backbone(
        BackboneConfig(name=NAME, overrides={"widths": [8, 8, 16, 16, 16]}),
        in_channels=1,
        num_classes=2,
        drop_path=0.1,
    )
    assert narrow.feature_info[0].channels == 8
    with pytest.raises(UsageError, match="did you mean 'widths'"):
        build_backbone(
            BackboneConfig(name=NAME, overrides={"width": 3}),
            in_channels=1,
            num_classes=2,
            drop_path=None,
        )
