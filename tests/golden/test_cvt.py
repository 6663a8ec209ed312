"""Test that CvT reproduces the recorded outputs of the official code."""

import pytest
import torch

from hybrid_backbones import create_model, load_published

RECORDS = [
    ("cvt_13", "cvt_13_224", "cvt_13_224"),
    ("cvt_13", "cvt_13_at_97x131", "cvt_13_224"),
    pytest.param("cvt_13_384", "cvt_13_at_384x384", "cvt_13_224", marks=pytest.mark.slow),
    pytest.param("cvt_w24_384", "cvt_w24_384", "cvt_w24_384", marks=pytest.mark.exhaustive),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "record_name", "keys"), RECORDS)
@torch.inference_mode()
def test_network_reproduces_the_recorded_outputs(name, record_name, keys, golden):
    record = golden(record_name, keys)
    with torch.device("meta"):
        model = create_model(name).eval()
    load_published(model, record.state_dict())
    encoded = model.encode(record.image())
    for stage, feature in enumerate(encoded.maps):
        record.check_feature(f"stage{stage + 1}", feature)
    record.check_feature("stage3_cls", encoded.tokens)
    record.check_logits(model.forward_head(encoded))
