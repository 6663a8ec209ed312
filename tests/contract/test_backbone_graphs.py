"""Every architecture works with torch.export, ONNX and torch.compile."""

import pytest
import torch
from torch import Tensor, nn

from hybrid_backbones import Backbone, FeatureExtractor
from hybrid_backbones.registry import SMALL_VARIANTS

# torch's exporters warn about parts of torch.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]

ODD, EVEN = (80, 65), (64, 96)
# The graph asks for more than one patch of the coarsest map along each side.
ABOVE_64 = {"mobilevit_xxs": (96, 128)}
# Equal blocks add nothing to a graph but time.
SHALLOW = {
    "cmt_ti": {"depths": (1, 1, 1, 1)},
    "cvt_13": {"depths": (1, 1, 1)},
    "mobile_former_26m": {"stages": (((3, 12),), ((6, 24),), ((6, 48),), ((6, 96),))},
    "moa_tiny": {"depths": (1, 1, 1)},
    "swin_tiny": {"depths": (2, 2, 1, 1)},
    "vitae_base": {"depth": 1},
    "vitae_tiny": {"depths": (0, 0, 1)},
    "vitaev2_s": {"depths": (1, 1, 1, 1)},
}


@pytest.fixture(autouse=True)
def _forget_graphs():
    """All families share `Backbone.forward`, of which torch keeps eight compiled forms."""
    torch.compiler.reset()


class MapsAndLogits(nn.Module):
    """All outputs of a backbone as one tuple."""

    def __init__(self, model: Backbone) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        encoded, maps = self.model.encode(image), None
        # CvT's classifier rounds down where its pyramid rounds up: two passes.
        if type(self.model).forward_features is not Backbone.forward_features:
            maps = self.model.forward_features(image)
        return (self.model.forward_head(encoded), *(maps or encoded.maps))


def images(count, size):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(count))


def assert_near(given, wanted, tolerance):
    for one, other in zip(given, wanted, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1)


def shallow(family):
    return family.build(**SHALLOW.get(family.name, {})).eval()


class Files:
    """A network exported once: its program and its ONNX file."""

    def __init__(self, model, image, open_axes, folder):
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
        self.model = MapsAndLogits(model)
        with torch.inference_mode():
            self.model(image)  # what a network keeps of a size must not enter the graph
        shapes = (dict.fromkeys(open_axes, torch.export.Dim.DYNAMIC),)
        self.program = torch.export.export(self.model, (image,), dynamic_shapes=shapes)
        path = folder / "network.onnx"
        torch.onnx.export(self.program, (), str(path), external_data=False, verbose=False)
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def check(self, image):
        with torch.inference_mode():
            wanted = self.model(image)
            assert_near(self.program.module()(image), wanted, 1e-5)
        given = self.session.run(None, {self.session.get_inputs()[0].name: image.numpy()})
        assert_near(map(torch.from_numpy, given), wanted, 1e-4)


def test_exported_program_and_onnx_file_serve_two_sizes_and_any_batch_size(traced_family, tmp_path):
    if SMALL_VARIANTS[traced_family.name].exports_any_size:
        files = Files(shallow(traced_family), images(2, (72, 104)), (0, 2, 3), tmp_path)
        for count, size in ((1, ODD), (3, ABOVE_64.get(traced_family.name, EVEN))):
            files.check(images(count, size))
        return
    for size in (ODD, EVEN):
        files = Files(shallow(traced_family), images(2, size), (0,), tmp_path)
        for count in (1, 3):
            files.check(images(count, size))


def test_network_compiles_without_graph_breaks(traced_family):
    model = traced_family.build().eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    image = images(2, ODD)
    with torch.no_grad():
        assert_near([compiled(image)], [model(image)], 1e-4)


def test_training_compiles_without_graph_breaks(traced_family):
    model = FeatureExtractor(traced_family.without_chance(num_classes=0))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    sum(one.square().mean() for one in compiled(images(2, ODD))).backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
