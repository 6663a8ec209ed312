"""Test that ViTAE and ViTAEv2 reproduce the recorded outputs of the official code."""

import pytest
import torch

from hybrid_backbones import create_model, load_published

SLOW = pytest.mark.slow
STAGED = [
    ("vitae_tiny", "vitae_tiny"),
    pytest.param("vitae_13m", "vitae_13m", marks=SLOW),
    pytest.param("vitae_small", "vitae_small", marks=SLOW),
    ("vitae_small", "vitae_small_at_160x160"),
    ("vitaev2_s", "vitaev2_s"),
    pytest.param("vitaev2_48m", "vitaev2_48m", marks=SLOW),
    pytest.param("vitaev2_b", "vitaev2_b", marks=SLOW),
]
EXHAUSTIVE = pytest.mark.exhaustive
PLAIN = [
    pytest.param("vitae_base", marks=SLOW),
    pytest.param("vitae_large", marks=EXHAUSTIVE),
    pytest.param("vitae_huge", marks=EXHAUSTIVE),
]


def load(name, record, **fields):
    # Build it on the meta device because the huge model has 5 GB in float64.
    with torch.device("meta"):
        model = create_model(name, **fields).eval()
    load_published(model, record.state_dict())
    return model


def keep_output(captured, name, module):
    module.register_forward_hook(lambda _module, _inputs, output: captured.update({name: output}))


def keep_input(captured, name, module):
    module.register_forward_hook(
        lambda _module, inputs, _output: captured.update({name: inputs[0]})
    )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "record_name"), STAGED)
@torch.inference_mode()
def test_staged_network_reproduces_the_recorded_outputs(name, record_name, golden):
    record = golden(record_name, name)
    model = load(name, record)
    captured = {}
    keep_input(captured, "pre_logits", model.head)
    for stage, layer in enumerate(model.layers):
        keep_output(captured, f"stage{stage + 1}_rc", layer.RC)
        keep_output(captured, f"stage{stage + 1}", layer)
    logits = model(record.image())
    for feature in record.figures["features"]:
        value = captured[feature]
        if name.startswith("vitaev2") and feature.endswith("_rc"):
            value = value.permute(0, 3, 1, 2)
        record.check_feature(feature, value)
    record.check_logits(logits)


@pytest.mark.parametrize("name", PLAIN)
@torch.inference_mode()
def test_plain_network_reproduces_the_recorded_outputs(name, golden):
    record = golden(name)
    model = load(name, record)
    captured = {}
    keep_input(captured, "pre_logits", model.head)
    model.embed.register_forward_hook(lambda _m, _i, output: captured.update(embed=output[0]))
    for index, cell in enumerate(model.cells):
        keep_output(captured, f"nc{index + 1}", cell)
    logits = model(record.image())
    for feature in record.figures["features"]:
        value = captured[feature.removesuffix("_cls")]
        if feature.endswith("_cls"):
            value = value[:, :1]
        elif feature != "pre_logits":
            value = value[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        record.check_feature(feature, value)
    record.check_logits(logits)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["224x224", "192x256"])
@torch.inference_mode()
def test_dense_backbone_reproduces_the_recorded_maps(size, golden):
    record = golden(f"vitaev2_s_dense_{size}")
    model = load("vitaev2_s", record, num_classes=0)
    for level, feature in enumerate(model.forward_features(record.image())):
        record.check_feature(f"out{level}", feature)
