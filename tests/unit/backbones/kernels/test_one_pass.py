"""The fused CPU operators give the results of the plain modules, and run only where they fit."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones import create_model
from hybrid_backbones.kernels.activation import GELU, QUICK_GELU, RELU6, SILU
from hybrid_backbones.kernels.conv_sequence import ConvSequence
from hybrid_backbones.kernels.dispatch import conv2d, conv_norm, residual_conv, to_fast_layout
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.kernels.onednn import can_run_inference
from hybrid_backbones.layers.conv_norm import ConvNorm
from hybrid_backbones.layers.mlp import Mlp

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build has no oneDNN"
)


def near(given, wanted, tolerance=1e-5):
    wanted = wanted.float()
    assert given.shape == wanted.shape
    assert (given - wanted).abs().max() <= tolerance * wanted.abs().max()


def strange_inputs():
    whole = torch.randn(3, 5, 7, 24)
    yield whole
    yield whole[:, 1:]
    yield whole.transpose(1, 2)
    yield torch.randn(3, 24, 5, 7).permute(0, 2, 3, 1)
    yield torch.randn(1, 1, 24).expand(4, 6, -1)
    yield torch.randn(24)[None]
    yield torch.randn(2, 9, 48)[..., ::2]


@pytest.mark.parametrize("index", range(7))
@pytest.mark.parametrize("bias", [True, False])
def test_linear_accepts_every_memory_layout(index, bias):
    torch.manual_seed(0)
    x = list(strange_inputs())[index]
    layer = Linear(24, 10, bias=bias)
    wanted = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.no_grad():
        near(layer(x), wanted)
    near(layer(x), wanted)


@pytest.mark.parametrize("widths", [(24, 10), (10, 24)])
@pytest.mark.parametrize("spread", [False, True])
def test_gradients_of_linear_are_the_plain_ones(widths, spread):
    torch.manual_seed(0)
    layer = Linear(*widths)
    plain = nn.Linear(*widths).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(3, 5, widths[0], requires_grad=True)
    y = x.detach().double().requires_grad_()
    # The gradient of a mean is one number, spread over the tensor without memory of its own.
    direction = torch.randn(3, 5, widths[1])
    for network, image in ((layer, x), (plain, y)):
        output = network(image)
        (output.sum() if spread else (output * direction.to(image.dtype)).sum()).backward()
    near(x.grad, y.grad)
    near(layer.weight.grad, plain.weight.grad)
    near(layer.bias.grad, plain.bias.grad)


def test_gradient_of_the_gradient_is_the_plain_one():
    layer = Linear(6, 4)
    x = torch.randn(5, 6, requires_grad=True)

    def penalty(function):
        (slope,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), [x, layer.weight])

    wanted = penalty(lambda image: F.linear(image, layer.weight, layer.bias))
    for given, other in zip(penalty(layer), wanted, strict=True):
        near(given, other)


def test_frozen_linear_passes_only_the_input_gradient():
    layer = Linear(6, 4).requires_grad_(False)
    x = torch.randn(5, 6, requires_grad=True)
    layer(x).sum().backward()
    near(x.grad, layer.weight.sum(0).expand(5, -1))
    assert layer.weight.grad is None


@pytest.mark.parametrize("activation", [GELU, QUICK_GELU, SILU], ids=["gelu", "quick", "silu"])
@torch.no_grad()
def test_mlp_equals_the_plain_mlp(activation):
    torch.manual_seed(0)
    mlp = Mlp(16, 40, activation=activation)
    x = 3 * torch.randn(2, 9, 16)
    near(mlp(x), mlp.double()(x.double()))


def test_quick_gelu_is_x_times_sigmoid_of_1_702_x():
    x = torch.linspace(-5, 5, 11)
    torch.testing.assert_close(QUICK_GELU(x.clone()), x * torch.sigmoid(1.702 * x))
    function = F.silu(QUICK_GELU.slope * x) / QUICK_GELU.slope
    torch.testing.assert_close(QUICK_GELU(x.clone()), function)


@pytest.mark.parametrize("activation", [None, SILU, RELU6, GELU], ids=["none", "silu", "6", "gelu"])
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 1},
        {"kernel": 1, "groups": 4},
        {"kernel": 3, "stride": 2},
        {"kernel": 3, "groups": 8},
    ],
)
@pytest.mark.parametrize("last", [True, False])
@torch.no_grad()
def test_conv_norm_equals_the_plain_modules(activation, settings, last):
    torch.manual_seed(0)
    layer = ConvNorm(8, 16, activation=activation, **settings).eval()
    layer.bn.running_mean.normal_()
    layer.bn.running_var.uniform_(0.5, 2)
    nn.init.normal_(layer.bn.weight)
    nn.init.normal_(layer.bn.bias)
    x = 3 * torch.randn(2, 8, 9, 7)
    x = to_fast_layout(x) if last else x
    near(layer(x), layer.double()(x.double()))


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ahead", [None, SILU, RELU6])
def test_gradients_of_a_pointwise_convolution_are_the_plain_ones(last, bias, ahead):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 12, 1, bias=bias)
    plain = nn.Conv2d(8, 12, 1, bias=bias).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, 5, 6)
    x = (to_fast_layout(x) if last else x).requires_grad_()
    y = x.detach().double().requires_grad_()
    direction = torch.randn(2, 12, 5, 6)
    given = conv2d(layer, x, ahead=ahead)
    wanted = plain(y if ahead is None else ahead(y))
    near(given, wanted)
    (given * direction).sum().backward()
    (wanted * direction).sum().backward()
    near(x.grad, y.grad)
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad)


@needs_onednn
@pytest.mark.parametrize("activation", [None, GELU], ids=["none", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_shortcut_is_added_before_the_activation(activation, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=bias)
    kept = layer.weight.clone()
    x = to_fast_layout(torch.randn(2, 8, 7, 5))
    wanted = layer(x).double() + x.double()
    wanted = wanted if activation is None else F.gelu(wanted)
    near(residual_conv(x, layer, activation), wanted)
    assert torch.equal(layer.weight, kept)


@needs_onednn
@pytest.mark.parametrize("last", [True, False])
@torch.no_grad()
def test_norm_ahead_of_a_pointwise_convolution_is_folded(last):
    torch.manual_seed(0)
    ahead, layer, behind = nn.BatchNorm2d(6), nn.Conv2d(6, 9, 1), nn.BatchNorm2d(9)
    for norm in (ahead, behind):
        norm.eval()
        for value in (norm.running_mean, norm.weight, norm.bias):
            nn.init.normal_(value)
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 6, 5, 4)
    given = conv_norm(to_fast_layout(x) if last else x, layer, norm_ahead=ahead, norm=behind)
    near(given, nn.Sequential(ahead, layer, behind).double()(x.double()))


@torch.no_grad()
def test_sequence_runs_all_its_layers():
    torch.manual_seed(0)
    layers = ConvSequence(
        nn.Conv2d(4, 6, 3, 2, 1),
        nn.SiLU(),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.Conv2d(6, 8, 1),
        nn.GELU(),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 4, 1),
        nn.BatchNorm2d(4),
    ).eval()
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 4, 11, 8)
    near(layers(x), layers.double()(x.double()))


@torch.no_grad()
def test_training_mode_normalizes_over_the_batch():
    layer = ConvNorm(3, 4, 1, activation=SILU).train()
    before = layer.bn.running_mean.clone()
    layer(torch.randn(2, 3, 5, 5) + 4)
    assert not torch.equal(layer.bn.running_mean, before)


@needs_onednn
@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # from the switch, on machines like this
def test_other_precisions_devices_and_tracers_use_the_plain_modules():
    x = torch.randn(2, 3)
    with torch.no_grad():
        assert can_run_inference(x)
        assert not can_run_inference(x.double())
        assert not can_run_inference(x.to("meta"))
        assert not can_run_inference(nn.Parameter(x))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not can_run_inference(x)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not can_run_inference(x)
        with FlopCounterMode(display=False) as counter:
            Linear(3, 5)(x)
        assert counter.get_total_flops() == 2 * 2 * 3 * 5
    assert not can_run_inference(x)


def mlp_pair(activation):
    torch.manual_seed(0)
    fast, plain = Mlp(12, 20, activation=activation), Mlp(12, 20, activation=activation).double()
    plain.load_state_dict(fast.state_dict())
    x = 2 * torch.randn(3, 5, 12)
    return fast, plain, x.clone().requires_grad_(), x.double().requires_grad_()


@pytest.mark.parametrize("activation", [SILU, RELU6, GELU, QUICK_GELU])
def test_gradients_of_an_mlp_are_the_plain_ones(activation):
    fast, plain, x, y = mlp_pair(activation)
    for model, image in ((fast, x), (plain, y)):
        kept = image.detach().clone()
        output = model(image)
        output.square().sum().backward()
        assert torch.equal(image, kept)
    near(x.grad, y.grad)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad)


@pytest.mark.parametrize("activation", [SILU, GELU, QUICK_GELU])
def test_gradient_of_the_gradient_of_an_mlp_is_the_plain_one(activation):
    fast, plain, x, y = mlp_pair(activation)
    for model, image in ((fast, x), (plain, y)):
        (first,) = torch.autograd.grad(model(image).square().sum(), image, create_graph=True)
        first.square().sum().backward()
    near(x.grad, y.grad, 1e-4)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad, 1e-4)


@pytest.mark.parametrize("frozen", ["fc1", "fc2"])
def test_frozen_half_of_an_mlp_passes_gradients_on(frozen):
    fast, plain, x, y = mlp_pair(GELU)
    for model, image in ((fast, x), (plain, y)):
        getattr(model, frozen).requires_grad_(False)
        model(image).square().sum().backward()
    near(x.grad, y.grad)
    for one, other in zip(fast.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            near(one.grad, other.grad)


@needs_onednn
@pytest.mark.parametrize("activation", [SILU, GELU, QUICK_GELU])
def test_training_keeps_one_hidden_tensor_of_an_mlp(activation):
    fast, _, x, _ = mlp_pair(activation)
    weights = {value.data_ptr() for value in fast.parameters()}
    kept = set()

    def pack(tensor):
        if tensor.numel() == 3 * 5 * 20 and tensor.data_ptr() not in weights:
            kept.add(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = fast(x)
    assert len(kept) == 1
    assert output.requires_grad


@torch.no_grad()
def test_maps_of_mobilevit_stay_channels_last_through_the_transformers():
    maps = (
        create_model("mobilevit_xxs", num_classes=0)
        .eval()
        .forward_features(torch.randn(2, 3, 64, 96))
    )
    assert all(one.is_contiguous(memory_format=torch.channels_last) for one in maps)
