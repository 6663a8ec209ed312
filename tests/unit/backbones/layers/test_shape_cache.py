"""Tables are computed once for each size, and again when their weights change."""

import copy
import pickle

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from hybrid_backbones import create_model
from hybrid_backbones.architectures import swin
from hybrid_backbones.kernels import tracing
from hybrid_backbones.layers.shape_cache import ShapeCache

SMALL = {
    "cmt_ti": {"depths": (1, 1, 1, 1), "image_size": 64},
    "moa_tiny": {"depths": (1, 1, 1), "window_size": 4, "image_size": 64, "embed_dim": 48},
    "swin_tiny": {"depths": (2, 2, 1, 1), "embed_dim": 48},
    "vitae_base": {"embed_dim": 48, "depth": 1, "num_heads": 3, "image_size": 64},
}
# Whose tables are weights, interpolated.
WEIGHTS = {"cmt_ti": "relative_pos", "vitae_base": "pos_embed"}
names = pytest.mark.parametrize("name", sorted(SMALL))


def make(name, **fields):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, **{**SMALL[name], **fields})
    with torch.no_grad():
        for key, value in model.named_parameters():
            if key.endswith("_table"):
                value.normal_(std=0.2)
    return model.eval()


def images(height=50, width=70, count=1):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(height))


def tables_of(model):
    found = [value for module in model.modules() for value in vars(module).values()]
    return [value for value in found if isinstance(value, ShapeCache)]


def count_cached(model):
    return sum(map(len, tables_of(model)))


def test_mask_of_a_size_is_computed_once(monkeypatch):
    made = []
    real = swin.shifted_window_mask
    monkeypatch.setattr(
        swin, "shifted_window_mask", lambda *size, **rest: made.append(size) or real(*size, **rest)
    )
    model = make("swin_tiny")
    for _ in range(3):
        model(images())
    assert made == [(13, 18)]
    model(images(64, 96))
    model(images())
    assert made == [(13, 18), (16, 24), (8, 12)]


@names
@torch.inference_mode()
def test_cached_tables_give_the_results_of_fresh_ones(name):
    model = make(name)
    for size in ((50, 70), (64, 96), (50, 70), (96, 64)):
        assert torch.equal(model(images(*size)), make(name)(images(*size)))
    assert count_cached(model) > 0


@names
def test_tables_of_inference_serve_training(name):
    model, fresh = make(name), make(name)
    with torch.inference_mode():
        model(images())
    for one in (model, fresh):
        one(images()).sum().backward()
    for (key, one), other in zip(model.named_parameters(), fresh.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=key)


@names
@torch.inference_mode()
def test_each_type_has_its_own_tables(name):
    model = make(name)
    model(images())
    double = model.double()(images().double())
    assert torch.equal(double, make(name).double()(images().double()))


@names
@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@torch.inference_mode()
def test_copies_start_without_tables_and_state_dicts_have_none(name, how):
    model = make(name)
    keys = list(model.state_dict())
    logits = model(images())
    assert list(model.state_dict()) == keys
    copied = how(model)
    assert count_cached(copied) == 0
    assert torch.equal(copied(images()), logits)


@pytest.mark.slow
@names
@torch.no_grad()
def test_fake_and_counted_passes_cache_nothing(name):
    model = make(name)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(images(80, 80)))
    with FlopCounterMode(display=False):
        model(images(70, 80))
    assert count_cached(model) == 0
    assert model(images(80, 80)).isfinite().all()


@pytest.mark.slow
@torch.no_grad()
def test_compiled_network_computes_its_own_tables():
    model = make("swin_tiny")
    wanted = model(images())
    kept = count_cached(model)
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
    torch.testing.assert_close(compiled(images()), wanted)
    assert count_cached(model) == kept


def test_cache_is_limited_and_drops_the_oldest_size():
    tables, made = ShapeCache(limit=2), []
    like = torch.zeros(1)

    def get(side):
        return tables.get((side,), lambda: made.append(side) or torch.full((side,), 1.0), like=like)

    for side in (1, 2, 1, 3, 2, 1):
        assert len(get(side)) == side
    assert made == [1, 2, 3, 1]
    assert len(tables) == 2


def test_nothing_is_cached_while_a_cuda_graph_is_recorded(monkeypatch):
    class OnGpu(torch.Tensor):
        is_cuda = True

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(tracing, "Tensor", OnGpu)
    tables = ShapeCache()
    tables.get((1,), lambda: None, like=torch.zeros(1).as_subclass(OnGpu))
    assert len(tables) == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.data.mul_(2),
        lambda table: table.detach().add_(1),
        lambda table: table.data.copy_(torch.randn_like(table)),
    ],
)
@pytest.mark.parametrize("name", sorted(WEIGHTS))
@torch.no_grad()
def test_table_is_recomputed_after_any_change_of_its_weights(name, change):
    model = make(name)
    before = model(images())
    for key, value in model.named_parameters():
        if key.endswith(WEIGHTS[name]):
            change(value)
    changed = model(images())
    assert not torch.equal(changed, before)
    fresh = make(name)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(changed, fresh(images()))
