"""Test every backbone as encoder of SegNetr: sizes, gradients, exports, skips, settings."""

import sys
import types
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

import hybrid_backbones
from segnetr.config.load import load_config
from segnetr.config.schema.segmentation import ModelConfig, SegNetrConfig
from segnetr.errors import UsageError
from segnetr.models.build import build_model, check_model
from segnetr.models.segnetr.segmentation import SegmentationModel

pytestmark = pytest.mark.slow

# One small model per family, with fewer blocks if the family has no small one.
FAMILIES: dict[str, dict[str, object]] = {
    "cmt_ti": {"depths": [1, 1, 1, 1]},
    "cvt_13": {"depths": [1, 1, 1]},
    "moa_tiny": {"depths": [1, 1, 1]},
    "mobile_former_26m": {},
    "mobilevit_xxs": {"depths": [1, 1, 1]},
    "swin_tiny_c24": {"depths": [1, 1, 1, 1]},
    "vitae_tiny": {"depths": [0, 0, 2]},
    "vitaev2_s": {"depths": [1, 1, 1, 1]},
}
ALL = hybrid_backbones.list_models()
# Every family here; the other variants, and the exports that take longest, in exhaustive runs.
FAMILIES_FIRST = [
    name if name in FAMILIES else pytest.param(name, marks=pytest.mark.exhaustive) for name in ALL
]
EXPORTED = [
    name if name == "vitae_tiny" else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in FAMILIES
]


def configure(encoder: str, **fields: object) -> ModelConfig:
    settings = {"width": 16, "mixing": "position", "encoder": encoder, **fields}
    config: ModelConfig = TypeAdapter(SegNetrConfig).validate_python(settings)
    return config


def build(encoder: str, *, channels: int = 3, classes: int = 2, **fields: object):
    torch.manual_seed(0)
    config = configure(encoder, encoder_settings=FAMILIES.get(encoder, {}), **fields)
    return build_model(config, in_channels=channels, num_classes=classes, image_size=(64, 64))


def build_empty(encoder: str, **fields: object) -> SegmentationModel:
    with torch.device("meta"):
        return build_model(
            configure(encoder, **fields), in_channels=3, num_classes=3, image_size=(64, 64)
        ).eval()


def test_every_backbone_family_is_covered() -> None:
    families = {type(hybrid_backbones.get_spec(name).config) for name in FAMILIES}
    everything = {type(hybrid_backbones.get_spec(name).config) for name in ALL}
    plain_vitae = type(
        hybrid_backbones.get_spec("vitae_base").config
    )  # a single map instead of a pyramid
    assert families == everything - {plain_vitae}


@pytest.mark.parametrize("name", FAMILIES_FIRST)
def test_levels_strides_and_widths_equal_those_of_the_backbone(name: str) -> None:
    model = build_empty(name)
    encoder = model.network.encoder
    pyramid = encoder.pyramid
    assert encoder.strides[0] == 1
    assert encoder.strides[-len(pyramid.strides) :] == pyramid.strides
    assert list(encoder.strides) == sorted(set(encoder.strides))
    with torch.no_grad():
        maps = encoder(torch.empty(1, 3, 75, 50, device="meta"))
        logits = model(torch.empty(1, 3, 75, 50, device="meta"))
    expected = [
        (1, channels, -(-75 // stride), -(-50 // stride))
        for channels, stride in zip(encoder.out_channels, encoder.strides, strict=True)
    ]
    assert [tuple(x.shape) for x in maps] == expected
    assert logits.shape == (1, 3, 75, 50)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_have_the_size_of_any_image(name: str) -> None:
    model = build(name, channels=1, classes=3).eval()
    for size in ((32, 32), (33, 71)):
        with torch.no_grad():
            logits = model(torch.randn(1, 1, *size))
        assert logits.shape == (1, 3, *size)
        assert logits.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_has_a_gradient(name: str) -> None:
    model = build(name)
    # With windows of 14, MoA's global attention has only one position on smaller maps.
    side = 128 if name == "moa_tiny" else 64
    target = torch.randint(0, 2, (2, side, side))
    nn.functional.cross_entropy(model(torch.randn(2, 3, side, side)), target).backward()
    without = [
        key
        for key, parameter in model.named_parameters()
        if parameter.requires_grad
        and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert without == []


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_of_an_image_do_not_depend_on_its_batch(name: str) -> None:
    model = build(name).eval().double()
    images = torch.randn(2, 3, 40, 64, dtype=torch.float64)
    with torch.no_grad():
        batched = model(torch.cat((images[:1], 100 * images[1:])))
        alone = model(images[:1])
    torch.testing.assert_close(batched[:1], alone, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("skip", ["irsc", "concat", "add"])
@pytest.mark.parametrize("name", ["mobilevit_xxs", "moa_tiny"])
def test_every_skip_works_with_every_kind_of_pyramid(name: str, skip: str) -> None:
    logits = build(name, skip=skip)(torch.randn(2, 3, 35, 48))
    logits.square().mean().backward()
    assert logits.shape == (2, 2, 35, 48)


@pytest.mark.parametrize("size", [(64, 64), (33, 71)])
def test_window_mixing_works_with_a_backbone(size: tuple[int, int]) -> None:
    model = build("mobile_former_26m", mixing="window")
    logits = model(torch.randn(2, 3, *size))
    logits.square().mean().backward()
    assert logits.shape == (2, 2, *size)


def test_state_dict_round_trips_through_a_file(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    first, second = build("mobile_former_26m").eval(), build("mobile_former_26m").eval()
    for parameter in second.parameters():
        nn.init.zeros_(parameter)
    save_file(first.state_dict(), tmp_path / "model.safetensors")
    second.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = torch.randn(1, 3, 33, 40)
    with torch.no_grad():
        assert torch.equal(first(image), second(image))


def test_finest_level_changes_most_at_a_changed_pixel() -> None:
    model = build("moa_tiny").eval()
    image = torch.randn(1, 3, 64, 64)
    changed = image.clone()
    changed[0, :, 20, 33] += 1
    with torch.no_grad():
        finest, other = (model.network.encoder(x)[0] for x in (image, changed))
    moved = (finest - other).abs().amax(1)[0]
    assert moved[20, 33] > 0
    assert moved[20, 33] == moved.max()


def test_backbone_keeps_its_own_initialization() -> None:
    torch.manual_seed(0)
    expected = hybrid_backbones.create_model(
        "mobilevit_xxs", features_only=True, depths=(1, 1, 1)
    ).state_dict()
    found = build("mobilevit_xxs").network.encoder.pyramid.backbone.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


@pytest.mark.slow
# The exporter of torch calls deprecated functions of torch.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", EXPORTED)
def test_each_family_exports_to_onnx_with_the_same_logits(name: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build(name).eval()
    image = torch.randn(1, 3, 64, 64)
    usual = model(image).detach()
    program = torch.export.export(model, (image,))
    with torch.no_grad():
        exported = program.module()(image)
    torch.testing.assert_close(exported, usual, rtol=1e-4, atol=1e-4 * float(usual.abs().max()))
    path = tmp_path / "model.onnx"
    torch.onnx.export(program, (image,), path, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path)
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    scale = float(usual.abs().max())
    assert abs(torch.from_numpy(found) - usual).max() <= 1e-4 * max(1.0, scale)


@pytest.mark.parametrize(
    ("encoder", "settings", "message"),
    [
        ("cvt13", {}, r"unknown encoder 'cvt13'; did you mean 'cvt_13'\?"),
        ("cvt_13", {"drop_pth": 0.1}, r"encoder_settings\.drop_pth.*did you mean 'drop_path'\?"),
        ("cvt_13", {"drop_path": "much"}, r"drop_path: 'much' does not fit"),
        ("cvt_13", {"depths": [1, 2]}, r"depths: \(1, 2\) does not fit"),
        ("cvt_13", {"num_classes": 4}, r"unknown setting .*num_classes"),
        ("segnetr", {"drop_path": 0.1}, r"takes none"),
    ],
)
def test_wrong_encoder_gives_a_one_line_error_that_says_how_to_continue(
    encoder: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_model(configure(encoder, encoder_settings=settings))
    assert "\n" not in str(caught.value)


def test_setting_rejected_by_the_backbone_gives_a_one_line_error() -> None:
    with pytest.raises(UsageError, match=r"moa_tiny.*layout"):
        build_empty("moa_tiny", encoder_settings={"layout": "diagonal"})


def test_encoder_and_its_settings_can_be_set_from_the_command_line() -> None:
    model = load_config(
        ["model/segnetr_any"],
        flags={"model.encoder": "cvt_13"},
        assignments=[
            "model.encoder_settings.drop_path=0.3",
            "model.encoder_settings.depths=[1,1,2]",
        ],
    ).model
    assert isinstance(model, SegNetrConfig)
    assert model.encoder == "cvt_13"
    assert model.encoder_settings == {"drop_path": 0.3, "depths": (1, 1, 2)}


def test_error_for_missing_timm_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"needs timm.*pip install timm.*mobilevit_s"):
        build_empty("timm:resnet18")


class StandIn(nn.Module):
    """A fake of the timm model with `features_only=True`, limited to the attributes we use."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            [nn.Conv2d(in_channels, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 16, 2, 2)]
        )
        self.feature_info = types.SimpleNamespace(
            channels=lambda: [8, 8, 16], reduction=lambda: [4, 4, 8]
        )
        self.output_fmt = types.SimpleNamespace(value="NHWC")

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = []
        for step in self.steps:
            image = step(image)
            maps.append(image.permute(0, 2, 3, 1))
        return maps


def test_timm_network_is_used_without_repeated_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def create_model(name: str, *, in_chans: int, **settings: object) -> nn.Module:
        asked.update({"name": name, **settings})
        return StandIn(in_chans)

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model))
    model = build("timm:stand_in")
    assert asked == {"name": "stand_in", "features_only": True, "pretrained": False}
    assert model.network.encoder.strides == (1, 2, 4, 8)
    assert model(torch.randn(2, 3, 37, 50)).shape == (2, 2, 37, 50)
