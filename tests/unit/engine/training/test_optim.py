import math

import pytest
import torch
from torch import nn

from hybrid_backbones import create_model, list_layers
from segnetr.config.schema.segmentation import TrainConfig
from segnetr.engine.training.optim import (
    build_optimizer,
    build_schedule,
    count_steps,
    count_steps_per_epoch,
    layer_factors,
    load_optimizer_state,
    name_optimizer_state,
    set_learning_rate,
    split_parameters,
)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.wide_norm = nn.LayerNorm((4, 2))
        self.scale = nn.Parameter(torch.ones(1))
        self.table = nn.Parameter(torch.randn(4, 4))
        self.frozen = nn.Parameter(torch.randn(4, 4), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(4, 1, 1))

    def forward(self, x):
        x = self.norm(self.convolution(x)) * self.scale + self.bias
        return self.wide_norm((x.mean((2, 3)) @ self.table).unsqueeze(-1).expand(-1, -1, 2))


def test_biases_norms_and_vectors_are_not_decayed_and_frozen_ones_are_excluded():
    model = Mixed()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, free = ({names[id(p)] for p in part} for part in split_parameters(model))
    assert decayed == {"convolution.weight", "table"}
    assert free == {
        "convolution.bias", "norm.weight", "norm.bias", "wide_norm.weight", "wide_norm.bias",
        "scale", "bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)],
)
def test_named_optimizer_applies_weight_decay_to_matrices_only(name, kind):
    optimizer = build_optimizer(Mixed(), TrainConfig(optimizer=name, weight_decay=0.3, lr=0.2))
    assert type(optimizer) is kind
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {0.2}


def test_vectors_of_torch_modules_are_not_decayed():
    """Check vectors that are neither biases nor parameters of norms."""
    model = nn.ModuleDict({"act": nn.PReLU(4), "attention": nn.MultiheadAttention(4, 2)})
    decayed, not_decayed = (names_of(model, group) for group in split_parameters(model))
    assert "act.weight" in not_decayed
    assert "attention.in_proj_bias" in not_decayed
    assert {"attention.in_proj_weight", "attention.out_proj.weight"} <= set(decayed)


def test_network_without_matrices_has_an_optimizer():
    assert len(build_optimizer(nn.BatchNorm2d(3), TrainConfig()).param_groups) == 1


def test_cosine_schedule_warms_up_and_ends_at_a_hundredth_of_its_peak():
    config = TrainConfig(lr=0.1, warmup_steps=10)
    rate = build_schedule(config, 100)
    rates = [rate(step) for step in range(100)]
    assert 0 < rates[0] < 0.1 / 10
    assert rates[10] == max(rates) == pytest.approx(0.1)
    assert rates[99] == pytest.approx(0.001)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rate(10 + 89 // 2) == pytest.approx(0.0505, rel=0.03)


def test_constant_schedule_does_not_change_after_the_warmup():
    rate = build_schedule(TrainConfig(lr=0.1, schedule="constant", warmup_steps=3), 50)
    assert [rate(step) for step in (3, 20, 49)] == [0.1, 0.1, 0.1]


@pytest.mark.parametrize("total", [1, 2, 3, 5])
def test_learning_rate_of_short_trainings_is_positive_and_at_most_the_peak(total):
    rate = build_schedule(TrainConfig(lr=0.1, warmup_steps=20), total)
    rates = [rate(step) for step in range(total)]
    assert all(0 < value <= 0.1 for value in rates)
    assert max(rates) >= 0.05


def test_learning_rate_is_set_in_all_parameter_groups():
    optimizer = build_optimizer(Mixed(), TrainConfig())
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("cases", "batch", "accumulate", "world"), [(30, 8, 1, 1), (30, 8, 2, 2), (1, 8, 1, 1)]
)
def test_an_epoch_covers_all_cases(cases, batch, accumulate, world):
    config = TrainConfig(batch_size=batch, accumulate=accumulate, epochs=3)
    steps = count_steps_per_epoch(config, cases=cases, world=world)
    assert steps == math.ceil(cases / (batch * accumulate * world))
    assert count_steps(config, cases=cases, world=world) == 3 * steps


def test_number_of_steps_has_priority_over_epochs():
    assert count_steps(TrainConfig(steps=7, epochs=3), cases=1000, world=1) == 7


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_optimizer_restored_from_named_tensors_continues_exactly(name, layout):
    def step(model, optimizer, seed):
        image = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        (model(image) ** 2).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    torch.manual_seed(0)
    config = TrainConfig(optimizer=name)
    model = Mixed().to(memory_format=layout)
    optimizer = build_optimizer(model, config)
    step(model, optimizer, 1)
    twin = Mixed().to(memory_format=layout)
    twin.load_state_dict(model.state_dict())
    twin_optimizer = build_optimizer(twin, config)
    tensors = {k: v.clone() for k, v in name_optimizer_state(optimizer, model).items()}
    contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
    load_optimizer_state(twin_optimizer, twin, contiguous)
    for seed in (2, 3):
        step(model, optimizer, seed)
        step(twin, twin_optimizer, seed)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one, other)
    assert tensors


def names_of(model, parameters):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)] for parameter in parameters}


@pytest.mark.parametrize(
    ("name", "no_weight_decay", "decayed"),
    [
        ("swin_tiny", "layers.0.blocks.0.attn.relative_position_bias_table",
         "layers.0.downsample.reduction.weight"),
        ("cvt_13", "stage2.cls_token", "stage2.blocks.0.attn.conv_proj_q.conv.weight"),
        # The official code of CMT decays its position tables.
        ("cmt_ti", "stages.0.blocks.0.norm1.weight", "stages.0.relative_pos"),
        ("moa_tiny", "layers.0.glb_attn.relative_position_bias_table", "head.weight"),
        ("mobilevit_xxs", "stem.bn.weight", "stem.conv.weight"),
        ("mobile_former_26m", "tokens.weight", "features.1.think.q.weight"),
        ("vitae_base", "embed.pos_embed", "embed.PRM.proj.weight"),
        ("vitaev2_s", "layers.0.NC.0.norm1.bias", "layers.0.NC.0.attn.qkv.weight"),
    ],
)  # fmt: skip
def test_no_weight_decay_of_a_backbone_is_respected(name, no_weight_decay, decayed):
    with torch.device("meta"):
        model = create_model(name, num_classes=2)
    yes, no = (names_of(model, part) for part in split_parameters(model))
    assert no_weight_decay in no
    assert decayed in yes
    assert not any(key.endswith((".bias", "cls_token", "pos_embed")) for key in yes)


def test_temperature_with_singleton_axes_is_not_decayed_but_a_gray_kernel_is():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = nn.Parameter(torch.ones(4, 1, 1))
            self.widen = nn.Conv2d(1, 8, 1)

    model = Scaled()
    yes, no = (names_of(model, part) for part in split_parameters(model))
    assert yes == {"widen.weight"}
    assert no == {"temperature", "widen.bias"}


@pytest.mark.parametrize("wrapped", [False, True])
def test_layer_decay_factors_decrease_from_the_head_to_the_stem(wrapped):
    with torch.device("meta"):
        backbone = create_model("mobilevit_xxs", num_classes=2)
    model = (
        nn.ModuleDict({"encoder": backbone, "decoder": nn.Linear(2, 2)}) if wrapped else backbone
    )
    prefix = "encoder." if wrapped else ""
    factors = layer_factors(model, decay=0.5, encoder=0.1)
    layers = list_layers(backbone)
    for distance, names in enumerate(reversed(layers)):
        for name in names:
            expected = 1.0 if distance == 0 else 0.1 * 0.5**distance
            assert factors.get(prefix + name, 1.0) == pytest.approx(expected)
    optimizer = build_optimizer(model, TrainConfig(lr=0.3), factors=factors)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        list(model.parameters())
    )
    set_learning_rate(optimizer, 0.2)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == pytest.approx(0.2 * factors.get(name, 1.0))


def test_layer_decay_of_one_has_no_factors():
    with torch.device("meta"):
        assert layer_factors(create_model("mobilevit_xxs")) == {}


def test_factor_for_an_unknown_parameter_is_rejected():
    with pytest.raises(ValueError, match="no parameter 'stem'"):
        build_optimizer(Mixed(), TrainConfig(), factors={"stem": 0.1})


def test_parameters_with_a_smaller_factor_have_smaller_updates():
    model = Mixed()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(lr=0.1, weight_decay=0)
    optimizer = build_optimizer(model, config, factors={"convolution.weight": 0.01})
    set_learning_rate(optimizer, 0.1)
    (model(torch.randn(4, 3, 6, 6)) ** 2).sum().backward()
    optimizer.step()
    moved = {n: (p - before[n]).abs().max().item() for n, p in model.named_parameters()}
    # The first step of Adam equals the learning rate.
    assert moved["table"] == pytest.approx(0.1, rel=1e-3)
    assert moved["convolution.weight"] == pytest.approx(0.001, rel=1e-3)
