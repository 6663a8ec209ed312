"""Test the paper's blocks as drop-in modules and its ablations as configurations."""

import pytest
import torch
from torch import nn

from segnetr.config.load import list_recipes, load_config
from segnetr.config.schema.segmentation import SegNetrConfig
from segnetr.models import BlockSettings, InformationRetentionSkip, SegNetrBlock
from segnetr.models.baselines.unext import shift_groups
from segnetr.models.build import build_model
from segnetr.models.cost import count_parameters
from segnetr.models.segnetr.decoder import choose_window

PAIRS = {
    "unet": "unet_irsc",
    "unet_plus_plus": "unet_plus_plus_irsc",
    "segnet": "segnet_irsc",
    "unext": "unext_irsc",
}


def empty(recipe: str) -> nn.Module:
    with torch.device("meta"):
        config = load_config([recipe]).model
        return build_model(config, in_channels=3, num_classes=2, image_size=(224, 224))


def test_block_needs_only_a_width_and_a_window() -> None:
    block = SegNetrBlock(6, 4)
    x = torch.randn(2, 6, 9, 14)
    assert block(x).shape == x.shape


def test_block_that_depends_on_the_grid_requires_its_size() -> None:
    with pytest.raises(ValueError, match="needs `size`"):
        SegNetrBlock(6, 4, settings=BlockSettings(mixing="window"))


def test_retention_skip_rejects_an_odd_width() -> None:
    with pytest.raises(ValueError, match="7 channels"):
        InformationRetentionSkip(7, 4)


@pytest.mark.parametrize("kind", ["both", "local", "global", "none"])
def test_each_interaction_has_its_branches_and_no_unused_parameters(kind: str) -> None:
    torch.manual_seed(0)
    settings = BlockSettings(mixing="position", interaction=kind)  # type: ignore[arg-type]
    block = SegNetrBlock(8, 2, settings=settings)
    block(torch.randn(2, 8, 12, 12)).pow(3).sum().backward()
    names = {name for name, _ in block.named_parameters()}
    assert any("interaction.local." in name for name in names) == (kind in ("both", "local"))
    assert any("interaction.global_." in name for name in names) == (kind in ("both", "global"))
    idle = [n for n, p in block.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@pytest.mark.parametrize(("plain", "irsc"), PAIRS.items())
def test_paired_configurations_differ_only_in_their_skips(plain: str, irsc: str) -> None:
    one, other = (load_config([f"model/{name}"]).model for name in (plain, irsc))
    changed = {key for key in vars(one) if getattr(one, key) != getattr(other, key)}
    assert changed == {"skip"}


@pytest.mark.parametrize(
    ("name", "mebi"),
    [
        ("windows_2222", 54.15),
        ("windows_4442", 14.27),
        ("windows_8421", 12.22),
        ("interaction_both", 12.22),
        ("skip_irsc", 12.22),
    ],
)
def test_ablation_has_the_documented_number_of_parameters(name: str, mebi: float) -> None:
    assert count_parameters(empty(f"ablation/{name}")) / 2**20 == pytest.approx(mebi, abs=6e-3)


def test_every_ablation_differs_from_segnetr_in_one_setting() -> None:
    segnetr = load_config(["model/segnetr"]).model
    for name in list_recipes("ablation"):
        model = load_config([f"ablation/{name}"]).model
        assert isinstance(model, SegNetrConfig)
        changed = {key for key in vars(segnetr) if getattr(segnetr, key) != getattr(model, key)}
        assert len(changed) <= 1, name


@pytest.mark.parametrize(
    ("stride", "window"), [(1, 0), (2, 8), (4, 4), (8, 2), (16, 1), (32, 1), (64, 1)]
)
def test_level_has_the_window_of_the_stage_in_the_paper(stride: int, window: int) -> None:
    assert choose_window(stride, (8, 4, 2, 1)) == window


def test_channel_groups_are_shifted_by_at_most_two_pixels() -> None:
    x = torch.arange(35.0).reshape(1, 5, 7, 1).expand(1, 5, 7, 3)
    shifted = shift_groups(x, 2)
    for group, shift in enumerate((-2, -1, 0, 1, 2)):
        rolled = torch.roll(nn.functional.pad(x, (0, 0, 2, 2)), shift, 2)[:, :, 2:-2]
        assert torch.equal(shifted[:, group], rolled[:, group])
    assert torch.equal(shift_groups(x.transpose(2, 3), 3), shifted.transpose(2, 3))
