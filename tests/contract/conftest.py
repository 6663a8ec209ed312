"""One small network of each family of backbones, for the promises that all of them keep."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hybrid_backbones import Backbone, create_model

# The smallest entry of each architecture, cut down where the code runs the same with less.
SMALL: dict[str, dict[str, Any]] = {
    "cmt_ti": {"depths": (1, 1, 2, 1), "image_size": 64},
    "cvt_13": {"depths": (1, 1, 2)},
    "mobile_former_26m": {},
    "mobilevit_xxs": {"depths": (1, 1, 1)},
    "moa_tiny": {"depths": (1, 1, 2), "window": 4, "image_size": 64},
    "swin_tiny": {"depths": (2, 2, 2, 2), "width": 48},
    "vitae_base": {"width": 96, "depth": 2, "heads": 3, "image_size": 64},
    "vitae_tiny": {"depths": (0, 0, 2)},
    "vitaev2_s": {"depths": (1, 1, 2, 1)},
}
# Rates of what draws random numbers in training.
RATES = ("dropout", "head_dropout", "token_dropout", "drop_path", "global_drop_path")


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of the registry, by its smallest entry.

    Attributes:
        name: The entry.
        fields: What is cut down of its configuration.
    """

    name: str
    fields: dict[str, Any]

    def build(self, *, num_classes: int = 10, in_channels: int = 3, **fields: Any) -> Backbone:
        """Make the network with seeded weights, none of which is left at a start of zero."""
        torch.manual_seed(0)
        model = create_model(
            self.name,
            num_classes=num_classes,
            in_channels=in_channels,
            **{**self.fields, **fields},
        )
        with torch.no_grad():
            for name, value in model.named_parameters():
                # Tables of positions and class tokens start at zero or near it.
                if name.endswith(("_table", "cls_token", "pos_embed")):
                    value.normal_(std=0.2)
            for name, value in model.named_buffers():
                if name.endswith("running_mean"):
                    value.normal_(std=0.1)
                elif name.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
        return model

    def without_chance(self, **fields: Any) -> Backbone:
        """Make the network with all rates of dropout and stochastic depth at zero."""
        known = create_model(self.name, num_classes=0, **self.fields).config
        rates = {rate: 0.0 for rate in RATES if hasattr(known, rate)}
        return self.build(**{**rates, **fields})


@pytest.fixture(params=sorted(SMALL))
def family(request: pytest.FixtureRequest) -> Family:
    """Each architecture in turn."""
    return Family(request.param, SMALL[request.param])


@pytest.fixture(scope="session")
def small_names() -> tuple[str, ...]:
    """The entries that stand for their architectures."""
    return tuple(SMALL)


@pytest.fixture
def image() -> Tensor:
    """Two images (2, 3, 64, 96)."""
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
