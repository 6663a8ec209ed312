"""Test that CMT reproduces the recorded outputs of the official code."""

import pytest
import torch

from hybrid_backbones import create_model, load_published

RECORDS = [
    "cmt_ti",
    pytest.param("cmt_s", marks=pytest.mark.slow),
    pytest.param("cmt_b", marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECORDS)
@torch.inference_mode()
def test_network_reproduces_the_recorded_outputs(name, golden):
    record = golden(name)
    model = create_model(name).double().eval()
    load_published(model, record.state_dict())
    image = record.image()
    record.check_feature("stem", model.stem(image))
    encoded = model.encode(image)
    for level, feature in enumerate(encoded.maps):
        record.check_feature(f"stage{level + 1}", feature)
    record.check_feature("head_conv", model.expand(encoded.maps[-1]))
    record.check_feature("pre_logits", model.expand(encoded.maps[-1]).mean((2, 3)))
    record.check_logits(model.forward_head(encoded))
