"""create_model accepts the field names of version 0.1, and the registry finds every family."""

import dataclasses
import warnings
from importlib import import_module
from pathlib import Path

import pytest

import hybrid_backbones.architectures
from hybrid_backbones import create_model, get_spec, list_models, rename_old_fields
from hybrid_backbones.registry import SMALL_VARIANTS, SPECS
from segnetr.errors import UsageError
from segnetr.models.segnetr.backbone_encoder import build_pyramid

OLD = {
    "swin_tiny": {"width": 24, "heads": (1, 2, 4, 8), "window": 4},
    "moa_tiny": {"width": 32, "heads": (1, 2, 4), "window": 7},
    "cvt_13": {"widths": (16, 32, 48), "heads": (1, 2, 3)},
    "cmt_ti": {"widths": (16, 16, 32, 32), "heads": (1, 1, 2, 2)},
    "vitae_base": {"width": 64, "heads": 4},
    "vitae_tiny": {"heads": (1, 1, 2)},
    "vitaev2_s": {"heads": (1, 1, 2, 2), "windows": (7, 7, 7, 7)},
    "mobilevit_xxs": {"heads": 2},
}
NEW = {
    "width": "embed_dim",
    "widths": "embed_dims",
    "heads": "num_heads",
    "window": "window_size",
    "windows": "window_sizes",
}


@pytest.mark.parametrize("name", OLD)
def test_old_field_names_are_accepted_with_one_warning_each(name):
    """Each warning is one line that names the old and the new field."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = create_model(name, num_classes=2, **OLD[name])
    lines = [str(warning.message) for warning in caught]
    assert lines == [f"{name}: setting {old!r} is now called {NEW[old]!r}" for old in OLD[name]]
    for old, value in OLD[name].items():
        assert getattr(model.config, NEW[old]) == value


def test_current_field_names_give_no_warning():
    """MobileViT's own field `widths` is not an old name."""
    assert create_model("mobilevit_xxs", widths=(8, 8, 16, 16, 16)).config.widths[0] == 8
    assert rename_old_fields("swin_tiny", {"embed_dim": 24, "unknown": 1}) == {
        "embed_dim": 24,
        "unknown": 1,
    }


def test_old_and_new_name_of_one_field_are_refused():
    """Which value is meant would be a guess."""
    with pytest.raises(ValueError, match="'width' is the old name of 'embed_dim'"):
        create_model("swin_tiny", width=24, embed_dim=48)


def test_encoder_settings_of_old_model_folders_are_read():
    """The settings that a model.json of version 0.1 stores build the same encoder."""
    settings = {"width": 24, "depths": (1, 1, 1, 1), "heads": (1, 2, 4, 8)}
    with pytest.warns(UserWarning, match="'embed_dim'|'num_heads'"):
        pyramid = build_pyramid("swin_tiny", 3, settings=settings)
    assert tuple(pyramid.out_channels) == (24, 48, 96, 192)
    with pytest.warns(UserWarning, match="'embed_dim'"), pytest.raises(UsageError, match="'x'"):
        build_pyramid("swin_tiny", 3, settings={"width": "x"})


@pytest.mark.parametrize("name", list_models())
def test_no_configuration_uses_an_old_name(name):
    """Every field that means an embedding width, heads or a window has the official name."""
    fields = {field.name for field in dataclasses.fields(get_spec(name).config)}
    old = set(NEW) - ({"widths"} if name.startswith("mobilevit") else set())
    assert not fields & old


def test_every_architecture_module_is_registered():
    """Adding a backbone takes one file and one line; a forgotten line fails here."""
    folder = Path(hybrid_backbones.architectures.__file__).parent
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    names = [spec.name for module in modules for spec in _import(module).SPECS]
    assert sorted(names) == sorted(SPECS)


def test_every_architecture_has_a_small_variant():
    """The contract tests run on a small network of each builder."""
    builders = {spec.build for spec in SPECS.values()}
    assert {SPECS[name].build for name in SMALL_VARIANTS} == builders


def _import(module):
    return import_module(f"hybrid_backbones.architectures.{module}")
