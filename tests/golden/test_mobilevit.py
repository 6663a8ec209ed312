"""Test that MobileViT reproduces recorded outputs with each of three published key layouts."""

import csv
from pathlib import Path

import pytest
import torch

from hybrid_backbones import create_model, load_published

FOLDER = Path(__file__).resolve().parent / "records"
RECORDS = [
    ("mobilevit_xxs", "mobilevit_xxs"),
    ("mobilevit_xxs", "mobilevit_xxs_r224"),
    ("mobilevit_xxs", "mobilevit_xxs_r200x168"),
    ("mobilevit_s", "mobilevit_s"),
    ("mobilevit_s", "mobilevit_s_r224"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "record_name"), RECORDS)
@torch.inference_mode()
def test_network_reproduces_the_recorded_outputs(name, record_name, golden):
    record = golden(record_name)
    model = create_model(name).double().eval()
    load_published(model, record.state_dict())
    image = record.image()
    record.check_feature("stem", model.stem(image))
    encoded = model.encode(image)
    for stage, feature in enumerate(encoded.maps):
        record.check_feature(f"stages{stage}", feature)
    record.check_feature("final_conv", model.final_conv(encoded.maps[-1]))
    record.check_logits(model.forward_head(encoded))


@torch.inference_mode()
def test_expanded_map_is_the_last_level_on_request(golden):
    record = golden("mobilevit_xxs")
    model = create_model("mobilevit_xxs", num_classes=0, expand_last=True).double().eval()
    load_published(model, record.state_dict())
    record.check_feature("final_conv", model.forward_features(record.image())[-1])


def in_layouts(name: str, order: str) -> tuple[dict, dict, dict]:
    """Return one network's random weights in the layouts of timm, ml-cvnets and transformers."""
    generator = torch.Generator().manual_seed(3)
    timm, cvnets, transformers = {}, {}, {}
    with (FOLDER / f"{name}.keymap.tsv").open() as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    for key, shape, cvnets_key, transformers_keys in rows:
        sides = [int(side) for side in shape.strip("[]").split(",") if side]
        value = torch.randn(sides, generator=generator)
        timm[key] = value
        cvnets_value = value.flip(1) if key == "stem.conv.weight" and order == "rgb" else value
        cvnets[cvnets_key] = cvnets_value
        names = transformers_keys.split(",")
        parts = cvnets_value.chunk(len(names)) if sides else [cvnets_value]
        transformers.update(zip(names, parts, strict=True))
    return timm, cvnets, transformers


@pytest.mark.parametrize("order", ["rgb", "bgr"])
@pytest.mark.parametrize("name", ["mobilevit_xxs", "mobilevit_xs", "mobilevit_s"])
def test_all_three_layouts_load_to_the_same_network(name, order):
    model = create_model(name, channel_order=order)
    timm, *others = in_layouts(name, order)
    load_published(model, timm)
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    for layout in others:
        load_published(model, layout)
        for key, value in model.state_dict().items():
            assert torch.equal(value, wanted[key]), key
