"""ViTAE and ViTAEv2 beyond the recorded numbers: any size, training, half precision."""

import math

import pytest
import torch
from torch import nn

from hybrid_backbones import create_model, load_published
from hybrid_backbones.layers.position import resize_positions

# Small enough for a unit test, with all parts of the published ones.
SMALL = {
    "vitae_tiny": {"depths": (0, 1, 2), "drop_path": 0.0},
    "vitae_base": {"embed_dim": 64, "depth": 2, "num_heads": 4, "drop_path": 0.0},
    "vitaev2_s": {
        "embed_dims": (16, 16, 32, 64),
        "token_dims": (32, 32, 64, 128),
        "depths": (1, 1, 1, 1),
        "groups": (1, 8, 16, 32),
        "reduction_groups": (1, 8, 16, 32),
        "num_heads": (1, 2, 4, 4),
        "drop_path": 0.0,
    },
}
PUBLISHED = [
    "vitae_tiny",
    "vitae_6m",
    "vitae_13m",
    "vitae_small",
    "vitae_base",
    "vitae_large",
    "vitae_huge",
    "vitaev2_s",
    "vitaev2_48m",
    "vitaev2_b",
]

names = pytest.mark.parametrize("name", SMALL)


def make(name, **fields):
    torch.manual_seed(0)
    return create_model(name, **{**SMALL[name], **fields})


@names
@pytest.mark.parametrize(
    ("size", "channels"), [((97, 131), 1), ((64, 96), 3), ((33, 47), 5), ((32, 32), 4)]
)
@torch.inference_mode()
def test_maps_have_the_declared_shapes_at_any_size(name, size, channels):
    model = make(name, num_classes=0, in_channels=channels).eval()
    maps = model.forward_features(torch.randn(2, channels, *size))
    assert [tuple(feature.shape) for feature in maps] == [
        (2, info.channels, math.ceil(size[0] / info.stride), math.ceil(size[1] / info.stride))
        for info in model.feature_info
    ]
    assert all(feature.isfinite().all() for feature in maps)


@pytest.mark.slow
def test_first_public_small_variant_is_a_setting():
    with torch.device("meta"):
        model = create_model("vitae_small", token_dims=(64, 64, 384))
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_191_528


@names
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_parameter_of_the_pyramid(name, checkpointing):
    model = make(name, num_classes=0).train()
    model.gradient_checkpointing = checkpointing
    maps = model.forward_features(torch.randn(2, 3, 64, 96))
    # The last map hangs on everything before it.
    maps[-1].square().mean().backward()
    without = [
        key
        for key, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert not without
    assert not [key for key in model.state_dict() if key.startswith(("head", "fc_norm"))]


@names
def test_checkpointed_gradients_equal_plain_ones(name):
    image = torch.randn(2, 3, 64, 64)
    found = []
    for checkpointing in (False, True):
        fields = {"token_dropout": 0.0} if name == "vitae_tiny" else {}
        model = make(name, num_classes=4, **fields).train()
        model.gradient_checkpointing = checkpointing
        model(image).square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain)


@names
@torch.inference_mode()
def test_images_of_a_batch_are_independent(name):
    model = make(name).double().eval()
    images = torch.randn(3, 3, 70, 50, dtype=torch.float64)
    together = model.encode(images)
    alone = model.encode(images[1:2])
    for feature, single in zip(together.maps, alone.maps, strict=True):
        torch.testing.assert_close(feature[1:2], single)
    torch.testing.assert_close(model.forward_head(together)[1:2], model.forward_head(alone))


@names
@pytest.mark.parametrize("half", ["autocast", "weights"])
@torch.inference_mode()
def test_half_precision_stays_finite_and_near(name, half):
    model = make(name).eval()
    image = torch.randn(2, 3, 64, 64)
    exact = model(image)
    if half == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(image)
    else:
        logits = model.bfloat16()(image.bfloat16())
    torch.testing.assert_close(logits.float(), exact, rtol=0, atol=0.1 * float(exact.std()) + 0.02)


@torch.inference_mode()
def test_performer_under_autocast_is_computed_in_float32():
    model = make("vitae_tiny").eval()
    performer = model.layers[0].RC.attn
    q, k, v = torch.randn(3, 2, 50, 64).bfloat16().unbind(0)
    with torch.autocast("cpu", torch.bfloat16):
        found = performer._attend(q, k, v)
    expected = performer._attend(q.float(), k.float(), v.float()).bfloat16()
    assert torch.equal(found, expected)


@pytest.mark.slow
def test_performer_leaves_autocast_without_a_graph_break():
    model = make("vitae_tiny").train()
    image = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        torch.compile(model, backend="eager", fullgraph=True)(image).sum().backward()


@torch.inference_mode()
def test_transformer_tokens_of_the_reduction_cell_attend():
    model = make("vitae_tiny", token_modules=("performer", "transformer", "none")).eval()
    cell = model.layers[1].RC
    assert cell.attn.attn.value_skip
    kept = []
    cell.attn.register_forward_hook(lambda *_: kept.append(True))
    assert model(torch.randn(1, 3, 64, 64)).isfinite().all()
    assert kept


def test_reduction_without_attention_of_another_width_is_refused():
    with pytest.raises(ValueError, match=r"has 256 channels.*token_dims is 300"):
        make("vitae_tiny", token_dims=(64, 64, 300))


@pytest.mark.parametrize("name", ["vitae_tiny", "vitaev2_s"])
@torch.inference_mode()
def test_dilated_convolutions_round_up_with_zeros(name):
    model = make(name, num_classes=0).double().eval()
    cell = model.layers[0].RC
    image = torch.randn(1, 3, 61, 63, dtype=torch.float64)
    padded = nn.functional.pad(image, (0, 1, 0, 3))
    torch.testing.assert_close(cell.PRM(image), cell.PRM(padded))
    assert cell(image).shape == cell(padded).shape


def test_position_embeddings_are_interpolated_except_that_of_the_class_token():
    table = torch.randn(1, 1 + 14 * 14, 8)
    assert resize_positions(table, (14, 14)) is table
    resized = resize_positions(table, (7, 20))
    assert resized.shape == (1, 1 + 140, 8)
    assert torch.equal(resized[:, 0], table[:, 0])
    flat = resize_positions(torch.ones_like(table), (9, 5))
    torch.testing.assert_close(flat, torch.ones_like(flat))


@torch.inference_mode()
def test_positions_of_another_image_size_are_loaded():
    source = make("vitae_base", image_size=160)
    state = {
        key.replace("embed.", "layers.0.RC.").replace("cells.", "layers.2.NC."): value
        for key, value in source.state_dict().items()
    }
    target = make("vitae_base")
    load_published(target, state)
    expected = resize_positions(source.embed.pos_embed, (14, 14))
    torch.testing.assert_close(target.embed.pos_embed, expected)


@names
def test_checkpoints_adapt_to_other_channels_and_classes(name):
    source = make(name)
    state = {
        key.replace("embed.PRM", "layers.0.RC.PRM")
        .replace("embed.", "layers.0.RC.")
        .replace("cells.", "layers.2.NC."): value
        for key, value in source.state_dict().items()
    }
    target = make(name, in_channels=1, num_classes=7).eval()
    notes = load_published(target, {"state_dict_ema": state}).notes
    firsts = 1 if name == "vitae_base" else 5
    assert sum("channels in the file" in note for note in notes) == firsts
    assert sum("classes in the file" in note for note in notes) == 1
    gray = torch.randn(1, 1, 64, 64)
    with torch.inference_mode():
        ours = target.encode(gray).maps[-1]
        theirs = source.eval().encode(gray.expand(-1, 3, -1, -1)).maps[-1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_stochastic_depth_rises_over_all_normal_cells():
    model = make("vitaev2_s", depths=(2, 2, 8, 2), drop_path=0.13)
    rates = [cell.drop_path.rate for stage in model.layers for cell in stage.NC]
    torch.testing.assert_close(rates, [index / 100 for index in range(14)], rtol=0, atol=1e-7)
