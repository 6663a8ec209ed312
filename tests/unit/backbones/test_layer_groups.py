"""Layers of all backbones contain every parameter once, in the order in which they run."""

import pytest
import torch
from torch import nn

from hybrid_backbones import create_model, list_layers
from hybrid_backbones.registry import SPECS

# One of each architecture, small where the family allows.
NAMES = (
    "cmt_ti", "cvt_13", "moa_tiny", "moa_cifar_tiny", "mobile_former_26m", "mobile_former_96m",
    "mobilevit_xxs", "swin_tiny", "vitae_tiny", "vitae_base", "vitaev2_s",
)  # fmt: skip


def build(name: str, **more):
    with torch.device("meta"):
        return create_model(name, **more)


EVERY = [
    name if name in NAMES else pytest.param(name, marks=pytest.mark.slow) for name in sorted(SPECS)
]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("classes", [0, 7])
def test_every_parameter_is_in_exactly_one_layer(name: str, classes: int) -> None:
    model = build(name, num_classes=classes)
    layers = list_layers(model)
    names = [parameter for layer in layers for parameter in layer]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    assert all(layers[:-1])


@pytest.mark.parametrize("name", EVERY)
def test_image_enters_at_the_first_layer_and_logits_leave_at_the_last(name: str) -> None:
    model = build(name, num_classes=7)
    layers = list_layers(model)
    first = model.first_convolution
    for key in (first,) if isinstance(first, str) else first:
        assert key in layers[0]
    for key in model.head_keys:
        assert key in layers[-1]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("swin_tiny", 1 + 12 + 1),
        ("cvt_13", 13 + 1),
        ("cmt_ti", 1 + 16 + 1),
        ("moa_tiny", 1 + 12 + 1),
        ("mobile_former_26m", 1 + 9 + 1),
        ("mobilevit_xxs", 1 + 1 + 3 + 2 + 2 + 2 + 1),
        ("vitae_tiny", 2 + 7 + 1),
        ("vitae_base", 1 + 12 + 1),
        ("vitaev2_s", 14 + 1),
    ],
)
def test_layers_are_the_blocks_plus_stem_and_head(name, count) -> None:
    assert len(list_layers(build(name))) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_layers_run_in_their_order(name: str) -> None:
    model = build(name, num_classes=3).eval()
    index = {p: layer for layer, names in enumerate(list_layers(model)) for p in names}
    seen: list[int] = []

    def note(prefix: str):
        def hook(module: nn.Module, _: object) -> None:
            own = [f"{prefix}.{key}" for key, _ in module.named_parameters(recurse=False)]
            seen.extend(index[key] for key in own[:1])

        return hook

    for prefix, module in model.named_modules():
        if prefix and next(module.parameters(recurse=False), None) is not None:
            module.register_forward_pre_hook(note(prefix))
    size = 32 if "cifar" in name else 224
    with torch.no_grad():
        model(torch.empty(1, 3, size, size, device="meta"))
    assert set(seen) == set(range(len(list_layers(model))))
    assert seen == sorted(seen)
