"""Every spec in the registry is correct; checked on the meta device, without computing."""

import dataclasses
import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones import create_model, get_spec, list_models
from hybrid_backbones.registry import SMALL_VARIANTS

pytestmark = pytest.mark.slow

NAMES = list_models()
# The small variant of each architecture here, the others in exhaustive runs.
SMALL_FIRST = [
    name if name in SMALL_VARIANTS else pytest.param(name, marks=pytest.mark.exhaustive)
    for name in NAMES
]


def published_classes(name):
    return get_spec(name).config.num_classes


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_multiply_adds_are_the_published_ones(name):
    entry = get_spec(name)
    with torch.device("meta"):
        model = create_model(name, num_classes=published_classes(name)).eval()
        image = torch.empty(1, 3, entry.image_size, entry.image_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        logits = model(image)
    assert logits.shape == (1, published_classes(name))
    assert counter.get_total_flops() / 2e9 == pytest.approx(entry.gmacs, rel=0.01)


@pytest.mark.parametrize("name", SMALL_FIRST)
def test_maps_have_the_declared_shapes_at_odd_sizes(name):
    for channels, size in ((1, (33, 64)), (4, (97, 131))):
        with torch.device("meta"):
            model = create_model(name, features_only=True, in_channels=channels).eval()
            image = torch.empty(2, channels, *size)
        with torch.no_grad():
            maps = model(image)
        for info, feature in zip(model.feature_info, maps, strict=True):
            wanted = [math.ceil(side / info.stride) for side in size]
            assert list(feature.shape) == [2, info.channels, *wanted]


@pytest.mark.parametrize("name", NAMES)
def test_pyramid_names_its_modules_and_goes_from_fine_to_coarse(name):
    with torch.device("meta"):
        model = create_model(name, num_classes=0)
    strides = tuple(info.stride for info in model.feature_info)
    assert strides == tuple(sorted(set(strides))) == get_spec(name).strides
    assert tuple(info.channels for info in model.feature_info) == get_spec(name).channels
    modules = dict(model.named_modules())
    assert all(info.module in modules for info in model.feature_info)


@pytest.mark.parametrize("name", NAMES)
def test_spec_states_its_sources(name):
    entry = get_spec(name)
    assert entry.name == name
    assert "arXiv:" in entry.paper
    assert "@" in entry.code
    assert entry.weights_license
    assert entry.top1 is None or 50 < entry.top1 < 100


def test_each_architecture_is_covered_by_a_small_network(small_names):
    builders = {get_spec(name).build for name in NAMES}
    assert {get_spec(name).build for name in small_names} == builders


@pytest.mark.parametrize(
    ("name", "nearest"), [("cvt13", "cvt_13"), ("swin_tinny", "swin_tiny"), ("CVT_21", "cvt_21")]
)
def test_error_for_an_unknown_name_suggests_the_closest(name, nearest):
    with pytest.raises(ValueError, match=f"{name!r}; did you mean {nearest!r}"):
        create_model(name)


@pytest.mark.parametrize("name", NAMES)
def test_error_for_a_misspelled_setting_suggests_the_closest(name):
    fields = [field.name for field in dataclasses.fields(get_spec(name).config)]
    known = "drop_path" if "drop_path" in fields else fields[-1]
    misspelled = known[:-2] + known[-1] + known[-2]
    with pytest.raises(ValueError, match=f"{misspelled!r}; did you mean {known!r}"):
        create_model(name, **{misspelled: 0.1})


def test_levels_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="levels 0 to 2"):
        create_model("cvt_13", features_only=True, levels=(1, 3))


def test_only_the_chosen_levels_are_returned():
    model = create_model("swin_tiny", features_only=True, levels=(1, 3), depths=(1, 1, 1, 1))
    assert (model.strides, model.out_channels) == ((8, 32), (192, 768))
    assert [tuple(m.shape[2:]) for m in model(torch.randn(1, 3, 64, 64))] == [(8, 8), (2, 2)]
