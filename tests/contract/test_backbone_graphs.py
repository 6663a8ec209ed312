"""Every architecture passes through torch.export, ONNX and torch.compile."""

import pytest
import torch
from torch import Tensor, nn

from hybrid_backbones import Backbone, FeatureExtractor

pytestmark = pytest.mark.slow

SIZES = ((64, 96), (80, 65))


class MapsAndLogits(nn.Module):
    """All that a backbone gives, as one tuple."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        encoded = self.model.encode(image)
        return (self.model.forward_head(encoded), *encoded.maps)


def images(count, size):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count))


def dynamic_batch():
    return ({0: torch.export.Dim("batch", min=1, max=64)},)


def assert_near(given, wanted, tolerance):
    for one, other in zip(given, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("size", SIZES)
def test_exported_program_serves_any_batch(family, size):
    model = MapsAndLogits(family.build().eval())
    program = torch.export.export(model, (images(2, size),), dynamic_shapes=dynamic_batch())
    for count in (1, 3):
        given = program.module()(images(count, size))
        with torch.inference_mode():
            assert_near(given, model(images(count, size)), 1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_onnx_file_serves_any_batch(family, size, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = MapsAndLogits(family.build().eval())
    path = tmp_path / "network.onnx"
    torch.onnx.export(
        model,
        (images(2, size),),
        str(path),
        dynamo=True,
        dynamic_shapes=dynamic_batch(),
        external_data=False,
        verbose=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for count in (1, 3):
        given = session.run(None, {name: images(count, size).numpy()})
        with torch.inference_mode():
            assert_near(map(torch.from_numpy, given), model(images(count, size)), 1e-4)


def test_network_compiles_without_graph_breaks(family):
    model = family.build().eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    image = images(2, SIZES[1])
    with torch.no_grad():
        assert_near([compiled(image)], [model(image)], 1e-5)


def test_training_compiles_without_graph_breaks(family):
    model = family.without_chance()
    pyramid = FeatureExtractor(family.without_chance(num_classes=0))
    for network in (model, pyramid):
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        output = compiled(images(2, SIZES[1]))
        outputs = [output] if isinstance(output, Tensor) else output
        sum(one.square().mean() for one in outputs).backward()
        trained = [p for p in network.parameters() if p.requires_grad]
        assert all(p.grad is not None for p in trained)
