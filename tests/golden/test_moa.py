"""Test that MoA-Transformer reproduces the recorded outputs of the official code."""

import pytest
import torch

from hybrid_backbones import create_model, load_published

RECORDS = [
    ("moa_tiny", "moa_tiny_r112", {"image_size": 112}),
    ("moa_cifar_tiny", "moa_cifar_tiny_stridefix", {"num_classes": 100}),
    ("moa_tiny", "moa_tiny", {}),
    pytest.param("moa_base", "moa_base", {}, marks=pytest.mark.slow),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "record_name", "fields"), RECORDS)
@torch.inference_mode()
def test_network_reproduces_the_recorded_outputs(name, record_name, fields, golden):
    record = golden(record_name)
    model = create_model(name, **fields).double().eval()
    load_published(model, record.state_dict())
    encoded = model.encode(record.image())
    for stage, feature in enumerate(encoded.maps[:-1]):
        record.check_feature(f"stage{stage + 1}_moa", feature)
    record.check_feature("final_norm", encoded.maps[-1])
    record.check_logits(model.forward_head(encoded))
