"""Compilers use the products of oneDNN as opaque operators, and exporters never see them."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from hybrid_backbones.kernels.activation import GELU, SILU
from hybrid_backbones.kernels.compiled_product import product, takes_products
from hybrid_backbones.kernels.dispatch import conv2d, to_fast_layout
from hybrid_backbones.kernels.linear import Linear
from hybrid_backbones.layers.mlp import Mlp

pytestmark = [
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="no oneDNN in this build"),
    # The first compilation of a process imports what warns.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
PRODUCT = torch.ops.hybrid_backbones.product.default


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch.compiler.reset()


def near(given, wanted, tolerance=1e-5):
    wanted = wanted.float()
    assert given.shape == wanted.shape
    assert (given - wanted).abs().max() <= tolerance * wanted.abs().max()


def graph_of(model, *inputs):
    """Return what the compiler is asked to call, without a graph break."""
    called = []

    def look(module, _):
        called.extend(node.target for node in module.graph.nodes if node.op == "call_function")
        return module

    torch.compile(model, fullgraph=True, backend=look)(*inputs)
    return called


def places():
    whole = torch.randn(3, 40, 70, 64)
    yield whole
    yield whole[:, 1:]
    yield whole.transpose(1, 2)
    yield torch.randn(3, 64, 40, 70).permute(0, 2, 3, 1)
    yield torch.randn(9000, 64)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("width", [16, 96])
def test_compiled_linear_has_the_plain_results_and_gradients(index, bias, width):
    torch.manual_seed(0)
    layer = Linear(64, width, bias=bias)
    plain = copy.deepcopy(layer).double()
    x = list(places())[index].requires_grad_()
    y = x.detach().double().requires_grad_()
    given = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    wanted = F.linear(y, plain.weight, plain.bias)
    direction = torch.randn(given.shape)
    near(given, wanted)
    (given * direction).sum().backward()
    (wanted * direction).sum().backward()
    near(x.grad, y.grad)
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad)


@pytest.mark.parametrize("ahead", [None, SILU])
@pytest.mark.parametrize("bias", [True, False])
def test_compiled_pointwise_convolution_has_the_plain_results_and_gradients(ahead, bias):
    torch.manual_seed(0)
    layer = nn.Conv2d(32, 48, 1, bias=bias)
    plain = copy.deepcopy(layer).double()
    x = to_fast_layout(torch.randn(2, 32, 40, 50)).requires_grad_()
    y = x.detach().double().requires_grad_()

    def run(image):
        return conv2d(layer, image, ahead=ahead)

    assert PRODUCT in graph_of(run, x)
    given = torch.compile(run, fullgraph=True, backend="aot_eager")(x)
    wanted = plain(y if ahead is None else ahead(y))
    direction = torch.randn(given.shape)
    near(given, wanted)
    (given * direction).sum().backward()
    (wanted * direction).sum().backward()
    near(x.grad, y.grad)
    for one, other in zip(layer.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad)


def test_other_convolutions_are_left_to_the_compiler():
    x = torch.randn(2, 32, 40, 50)
    for layer, image in (
        (nn.Conv2d(32, 48, 1), x),  # channels first
        (nn.Conv2d(32, 48, 3, padding=1), to_fast_layout(x)),
        (nn.Conv2d(32, 48, 1, groups=2), to_fast_layout(x)),
    ):
        assert PRODUCT not in graph_of(partial(conv2d, layer), image)


@pytest.mark.parametrize("shape", [(9, 5), (2, 5, 3, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_operator_passes_opcheck(shape, bias):
    x = torch.randn(shape)
    x = (to_fast_layout(x) if x.ndim == 4 else x).requires_grad_()
    weight = torch.randn(7, 5, requires_grad=True)
    torch.library.opcheck(
        product, (x, weight, torch.randn(7, requires_grad=True) if bias else None)
    )


def test_gradient_of_the_operators_gradient_is_the_plain_one():
    x, weight = torch.randn(6, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)

    def penalty(function):
        slopes = torch.autograd.grad(
            function(x, weight, None).pow(3).sum(), (x, weight), create_graph=True
        )
        return torch.autograd.grad(sum(s.square().sum() for s in slopes), (x, weight))

    for given, wanted in zip(penalty(product), penalty(F.linear), strict=True):
        near(given, wanted)


def test_frozen_linear_passes_only_the_input_gradient():
    layer = Linear(64, 96).requires_grad_(False)
    x = torch.randn(2000, 64, requires_grad=True)
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x).sum().backward()
    near(x.grad, layer.weight.sum(0).expand(2000, -1))
    assert layer.weight.grad is None


def test_compiler_sees_one_operator_for_each_large_matrix():
    assert graph_of(Mlp(64, 96), torch.randn(1500, 64)).count(PRODUCT) == 2


def test_small_matrices_are_left_to_the_compiler():
    assert PRODUCT not in graph_of(Mlp(64, 96), torch.randn(5, 64))


def test_other_precisions_and_devices_are_left_to_the_compiler():
    x, layer = torch.randn(2000, 64), Linear(64, 96)
    assert PRODUCT in graph_of(layer, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert PRODUCT not in graph_of(layer, x)
    assert PRODUCT not in graph_of(copy.deepcopy(layer).double(), x.double())
    assert PRODUCT not in graph_of(copy.deepcopy(layer).to("meta"), x.to("meta"))


def test_without_a_compiler_no_operator_is_called():
    assert not takes_products(torch.randn(2000, 64), torch.randn(96, 64))


@pytest.mark.parametrize("strict", [True, False])
def test_exported_program_contains_only_plain_operators(strict):
    program = torch.export.export(Mlp(64, 96), (torch.randn(1500, 64),), strict=strict)
    assert "hybrid_backbones" not in str(program.graph)


class Checkpointed(nn.Module):
    """An MLP that keeps only its input."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp

    def forward(self, x):
        return checkpoint(self.mlp, x, use_reentrant=False)


def test_compiled_checkpoint_has_the_same_gradients():
    torch.manual_seed(0)
    plain = Mlp(64, 96, activation=GELU)
    saving = copy.deepcopy(plain)
    x = torch.randn(1500, 64)
    plain(x).square().sum().backward()
    compiled = torch.compile(Checkpointed(saving), fullgraph=True, backend="aot_eager")
    compiled(x).square().sum().backward()
    for one, other in zip(saving.parameters(), plain.parameters(), strict=True):
        near(one.grad, other.grad)


def test_compiled_graph_serves_other_batch_sizes():
    layer = Linear(64, 96)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (1500, 2000, 3, 1700):
        x = torch.randn(rows, 64)
        near(compiled(x), F.linear(x.double(), layer.weight.double(), layer.bias.double()))
