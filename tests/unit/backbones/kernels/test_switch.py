"""plain() and its environment variable switch off every kernel of both packages."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import nn

from hybrid_backbones import create_model, kernels
from hybrid_backbones.kernels import dispatch
from hybrid_backbones.kernels.switch import ENVIRONMENT_VARIABLE, settings
from hybrid_backbones.layers.mlp import Mlp
from segnetr.models.kernels.recomputation import recompute_large_maps
from segnetr.models.segnetr.blocks import SegNetrBlock

needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build has no oneDNN"
)
# Operators of kernels, as the profiler names them.
KERNELS = ("mkldnn::_", "segnetr::", "hybrid_backbones::", "_Linear", "_ActivatedLinear")


def run_everything():
    """Run inference and a training step of both packages, and return the kernels that ran."""
    torch.manual_seed(0)
    block = SegNetrBlock(8, 4)
    backbones = [
        create_model("mobilevit_xxs", num_classes=2, depths=(1, 1, 1)),
        create_model("cmt_ti", num_classes=2, depths=(1, 1, 1, 1), image_size=64),
        create_model("cvt_13", num_classes=2, depths=(1, 1, 1)),
    ]
    with torch.profiler.profile() as profiler, kernels.configure(large_map_bytes=0):
        for network in (block, *backbones):
            x = torch.randn(2, 8 if network is block else 3, 64, 64)
            network.train()(x).square().mean().backward()
            with torch.no_grad():
                network.eval()(x)
    names = {event.key for event in profiler.key_averages()}
    return {name for name in names if name.startswith(KERNELS)}


@pytest.mark.slow
@needs_onednn
def test_plain_switches_off_every_kernel_of_both_packages():
    """Without plain() each kind of kernel runs, inside it none does, behind it all do again."""
    ran = run_everything()
    assert {
        "mkldnn::_linear_pointwise",
        "mkldnn::_convolution_pointwise",
        "segnetr::mbconv_train_cpu",
        "segnetr::mbconv_train_cpu_backward",
        "segnetr::mbconv_infer_cpu",
        "segnetr::channel_covariance",
        "_Linear",
        "_ActivatedLinear",
    } <= ran
    with kernels.plain():
        assert kernels.is_plain()
        assert run_everything() == set()
    assert not kernels.is_plain()
    assert run_everything() == ran


@pytest.mark.slow
@needs_onednn
def test_environment_variable_switches_off_every_kernel():
    """The variable acts on a whole process, and plain() inside it changes nothing."""
    script = (
        "import sys, importlib.util as u\n"
        f"spec = u.spec_from_file_location('switch_test', {__file__!r})\n"
        "module = u.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "from hybrid_backbones import kernels\n"
        "with kernels.plain(): pass\n"
        "print(kernels.is_plain(), sorted(module.run_everything()))\n"
    )
    environment = {**os.environ, ENVIRONMENT_VARIABLE: "1"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "True []", done.stderr


@pytest.mark.parametrize(("value", "expected"), [("0", False), ("", False), ("1", True)])
def test_environment_variable_is_read_when_a_process_starts(value, expected, monkeypatch):
    """0 and an empty value leave the kernels on."""
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, value)
    assert type(settings)().is_plain is expected


def test_plain_keeps_the_memory_format_and_every_tensor():
    """The layout change, both recomputations, and the layouts' kernels are off too."""
    image = torch.randn(1, 3, 8, 8)
    layers = nn.Sequential(nn.Conv2d(3, 16, 1), nn.SiLU(), nn.Conv2d(16, 2, 1))
    kept = []
    with (
        kernels.plain(),
        kernels.configure(large_map_bytes=0),
        torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor
        ),
    ):
        assert dispatch.to_fast_layout(image) is image
        assert not dispatch.recomputes_activations()
        recompute_large_maps(layers, image)
        count = len(kept)
        layers(image)
    assert len(kept) == 2 * count
    with kernels.configure(large_map_bytes=0):
        assert dispatch.to_fast_layout(image).is_contiguous(memory_format=torch.channels_last)
        assert dispatch.recomputes_activations()


def test_compiled_function_is_compiled_again_inside_plain():
    """A graph with our product does not serve plain(), and comes back behind it."""
    torch.compiler.reset()
    called = []

    def look(module, _):
        called.append([node.target for node in module.graph.nodes if node.op == "call_function"])
        return module

    model = Mlp(64, 96)
    compiled = torch.compile(model, fullgraph=True, backend=look)
    x = torch.randn(1500, 64)
    product = torch.ops.hybrid_backbones.product.default
    first = compiled(x)
    with kernels.plain():
        second = compiled(x)
    third = compiled(x)
    assert len(called) == 2
    assert (product in called[0]) == torch.backends.mkldnn.is_available()
    assert product not in called[1]
    torch.testing.assert_close(first, second)
    torch.testing.assert_close(first, third)


def test_kernels_return_when_the_last_of_overlapping_contexts_ends():
    """Contexts of two threads overlap; an error inside one restores the state too."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with kernels.plain():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait()
    with pytest.raises(KeyError), kernels.plain(), kernels.plain():
        raise KeyError
    assert kernels.is_plain()
    leave.set()
    thread.join()
    assert not kernels.is_plain()


def test_configure_changes_the_given_sizes_and_restores_them():
    """Sizes that are not given keep their values, also inside a nested context."""
    before = vars(settings).copy()
    with kernels.configure(tile_bytes=1, min_product_macs=2):
        with kernels.configure(large_map_bytes=3):
            assert (settings.tile_bytes, settings.min_product_macs) == (1, 2)
            assert settings.large_map_bytes == 3
        assert settings.large_map_bytes == before["large_map_bytes"]
    assert vars(settings) == before


def test_gradient_checkpointing_works_inside_plain():
    """The user requests checkpointing, so plain() does not affect it."""
    model = create_model("cvt_13", num_classes=2, depths=(1, 1, 1)).train()
    model.gradient_checkpointing = True
    kept = []
    for checkpointing in (True, False):
        model.gradient_checkpointing = checkpointing
        sizes = []
        with (
            kernels.plain(),
            torch.autograd.graph.saved_tensors_hooks(
                lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor,
                lambda tensor: tensor,
            ),
        ):
            model(torch.randn(2, 3, 64, 64)).sum().backward()
        kept.append(sum(sizes))
    assert kept[0] < kept[1]
