"""Test that Swin reproduces the recorded outputs of the official code."""

import numpy as np
import pytest
import torch

from hybrid_backbones import create_model, load_published
from hybrid_backbones.layers.windows import resize_relative_table

VARIANTS = {
    "swin_tiny": "swin_tiny_window7_224",
    "swin_tiny_c24": "swin_tiny_c24_window8_256",
    "swin_base": "swin_base_window7_224",
    "swin_base_384": "swin_base_window12_384",
    "swin_large": "swin_large_window7_224",
    "swin_large_384": "swin_large_window12_384",
}
LARGE = {"swin_base_384", "swin_large", "swin_large_384"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.exhaustive] if n in LARGE else []) for n in VARIANTS],
)
@torch.inference_mode()
def test_classifier_reproduces_the_recorded_outputs(name, golden):
    record = golden(VARIANTS[name])
    model = create_model(name).double().eval()
    load_published(model, record.state_dict())
    encoded = model.encode(record.image())
    for level, feature in enumerate(encoded.maps):
        record.check_feature(f"stage{level + 1}", feature)
    record.check_logits(model.forward_head(encoded))


@pytest.mark.slow
@pytest.mark.parametrize("size", ["224x224", "97x131"])
@torch.inference_mode()
def test_dense_backbone_reproduces_the_recorded_maps(size, golden):
    record = golden(f"swin_tiny_dense_{size}")
    model = create_model("swin_tiny", num_classes=0, dense=True).double().eval()
    load_published(model, record.state_dict())
    for level, feature in enumerate(model.forward_features(record.image())):
        record.check_feature(f"out{level}", feature)


def test_relative_position_tables_are_resized_as_by_the_official_loader(golden_figures):
    figures = golden_figures("swin_relpos_resize")
    cases = {key.rsplit(".", 1)[0] for key in figures if key.endswith(".first64")}
    assert len(cases) == 3
    for case in cases:
        key, sizes = case.split("|")
        source, target = (int(size.split("x")[0]) for size in sizes.split("->"))
        heads = int(sizes.split("x")[-1])
        table = torch.from_numpy(golden_figures.fill(key, (source, heads)))
        resized = resize_relative_table(table, round(target**0.5)).numpy().ravel()
        np.testing.assert_allclose(resized[:64], figures[f"{case}.first64"], atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(resized), figures[f"{case}.l2"], rtol=1e-12)
