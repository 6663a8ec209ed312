"""Every architecture passes through torch.export, ONNX and torch.compile."""

import pytest
import torch
from torch import Tensor, nn

from hybrid_backbones import Backbone, FeatureExtractor

# torch's exporters warn about parts of torch.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

ODD, EVEN = (80, 65), (64, 96)
# Where the graph depends on the size beyond its numbers: resizing of odd maps, padded windows.
BOTH = ("mobilevit_xxs", "swin_tiny")


@pytest.fixture(autouse=True)
def _forget_graphs():
    """All families share `Backbone.forward`, of which torch keeps eight compiled forms."""
    torch.compiler.reset()


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


def assert_near(given, wanted, tolerance):
    for one, other in zip(given, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


@pytest.mark.parametrize("size", [ODD, EVEN], ids=["odd", "even"])
def test_exported_program_and_onnx_file_serve_any_batch(family, size, tmp_path):
    if size == EVEN and family.name not in BOTH:
        pytest.skip("its graph is that of the odd size with other numbers")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = MapsAndLogits(family.build().eval())
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (images(2, size),), dynamic_shapes=({0: batch},))
    path = tmp_path / "network.onnx"
    torch.onnx.export(program, (), str(path), external_data=False, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for count in (1, 3):
        image = images(count, size)
        with torch.inference_mode():
            wanted = model(image)
            assert_near(program.module()(image), wanted, 1e-5)
        given = session.run(None, {name: image.numpy()})
        assert_near(map(torch.from_numpy, given), wanted, 1e-4)


def test_network_compiles_without_graph_breaks(family):
    model = family.build().eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    image = images(2, ODD)
    with torch.no_grad():
        assert_near([compiled(image)], [model(image)], 1e-4)


def test_training_compiles_without_graph_breaks(family):
    model = FeatureExtractor(family.without_chance(num_classes=0))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    sum(one.square().mean() for one in compiled(images(2, ODD))).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
