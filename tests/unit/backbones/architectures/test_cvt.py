"""CvT as a pyramid: no place is made of padding, and multiples of 16 are as published."""

import torch
import torch.nn.functional as F

from hybrid_backbones import create_model


def make(**fields):
    torch.manual_seed(0)
    return create_model("cvt_13", depths=(1, 1, 2), num_classes=0, **fields).double().eval()


@torch.inference_mode()
def test_pyramid_is_the_published_encoding_at_multiples_of_sixteen():
    model = make()
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    pairs = zip(model.forward_features(image), model.encode(image).maps, strict=True)
    assert all(torch.equal(feature, published) for feature, published in pairs)


@torch.inference_mode()
def test_attention_has_one_token_for_each_position_with_image_content():
    model = make()
    seen = []
    for stage in (model.stage0, model.stage1, model.stage2):
        stage.blocks[0].attn.register_forward_hook(
            lambda _module, inputs, _output: seen.append(inputs[1])
        )
    model.forward_features(torch.randn(1, 3, 97, 131, dtype=torch.float64))
    assert seen == [(25, 33), (13, 17), (7, 9)]


@torch.inference_mode()
def test_odd_images_are_padded_only_to_the_stride():
    model = make()
    image = torch.randn(1, 3, 97, 131, dtype=torch.float64)
    padded = F.pad(image, (0, 1, 0, 3))
    wanted = model.encode(padded).maps[0]
    torch.testing.assert_close(model.forward_features(image)[0], wanted, rtol=0, atol=0)


def test_class_token_affects_the_maps_without_a_head():
    model = make().train()
    model.forward_features(torch.randn(2, 3, 64, 64, dtype=torch.float64))[-1].sum().backward()
    assert model.stage2.cls_token.grad.any()
