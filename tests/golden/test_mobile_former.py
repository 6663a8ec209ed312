"""Test that Mobile-Former reproduces the recorded outputs of the official code per block."""

import pytest
import torch

from hybrid_backbones import create_model, load_published

RECORDS = [
    ("mobile_former_26m", "mobileformer_26m"),
    ("mobile_former_26m", "mobileformer_26m_r256x192"),
    ("mobile_former_26m", "mobileformer_26m_r250x190"),
    ("mobile_former_52m", "mobileformer_52m"),
    ("mobile_former_96m", "mobileformer_96m"),
    ("mobile_former_96m", "mobileformer_96m_r256x192"),
    ("mobile_former_294m", "mobileformer_294m"),
    ("mobile_former_508m", "mobileformer_508m"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "record_name"), RECORDS)
@torch.inference_mode()
def test_network_reproduces_the_recorded_outputs(name, record_name, golden):
    record = golden(record_name)
    model = create_model(name).double().eval()
    load_published(model, record.state_dict())
    outputs = {}
    for index, block in enumerate(model.features):
        block.register_forward_hook(
            lambda _module, _inputs, output, index=index: outputs.update({index: output})
        )
    encoded = model.encode(record.image())
    for index, (feature, tokens) in outputs.items():
        record.check_feature(f"features{index}_map", feature)
        record.check_feature(f"features{index}_tokens", tokens)
    for info, feature in zip(model.feature_info, encoded.maps, strict=True):
        recorded = info.module.replace("features.", "features") + "_map"
        record.check_feature("stem" if info.module == "stem" else recorded, feature)
    read = model.read(encoded.maps[-1], encoded.tokens)
    record.check_feature("local_global_tokens", read)
    record.check_logits(model.forward_head(encoded))


@torch.inference_mode()
def test_encoder_loads_from_the_published_classifier(golden):
    record = golden("mobileformer_26m")
    model = create_model("mobile_former_26m", num_classes=0).double().eval()
    load_published(model, record.state_dict())
    encoded = model.encode(record.image())
    record.check_feature("features8_map", encoded.maps[-1])
    record.check_feature("features8_tokens", encoded.tokens)
