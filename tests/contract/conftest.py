"""One small network of each architecture in the registry, for the contract tests."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hybrid_backbones import Backbone, create_model
from hybrid_backbones.registry import SMALL_VARIANTS

# Rates of dropout and stochastic depth, which draw random numbers in training.
RATES = ("dropout", "head_dropout", "token_dropout", "drop_path", "global_drop_path")


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture of the registry, by a small variant.

    Attributes:
        name: Name of the variant.
        fields: Overrides of its configuration.
    """

    name: str
    fields: dict[str, Any]

    def build(self, *, num_classes: int = 10, in_channels: int = 3, **fields: Any) -> Backbone:
        """Build the network with seeded weights, none of which is zero."""
        torch.manual_seed(0)
        model = create_model(
            self.name,
            num_classes=num_classes,
            in_channels=in_channels,
            **{**self.fields, **fields},
        )
        with torch.no_grad():
            for name, value in model.named_parameters():
                # Position tables and class tokens are initialized with zero or almost zero.
                if name.endswith(("_table", "cls_token", "pos_embed")):
                    value.normal_(std=0.2)
            for name, value in model.named_buffers():
                if name.endswith("running_mean"):
                    value.normal_(std=0.1)
                elif name.endswith("running_var"):
                    value.uniform_(0.5, 1.5)
        return model

    def without_chance(self, **fields: Any) -> Backbone:
        """Build the network without dropout and stochastic depth."""
        known = create_model(self.name, num_classes=0, **self.fields).config
        rates = {rate: 0.0 for rate in RATES if hasattr(known, rate)}
        return self.build(**{**rates, **fields})


@pytest.fixture(params=sorted(SMALL_VARIANTS))
def family(request: pytest.FixtureRequest) -> Family:
    """Each architecture."""
    return Family(request.param, dict(SMALL_VARIANTS[request.param].overrides))


# Tracing takes minutes for the other architectures.
_TRACED_FAST = {"vitae_base", "vitae_tiny"}


@pytest.fixture(
    params=[
        name if name in _TRACED_FAST else pytest.param(name, marks=pytest.mark.exhaustive)
        for name in sorted(SMALL_VARIANTS)
    ]
)
def traced_family(request: pytest.FixtureRequest) -> Family:
    """Each architecture, most of them in exhaustive runs only."""
    return Family(request.param, dict(SMALL_VARIANTS[request.param].overrides))


@pytest.fixture(scope="session")
def small_names() -> tuple[str, ...]:
    """The names of the small variants."""
    return tuple(SMALL_VARIANTS)


@pytest.fixture
def image() -> Tensor:
    """Two images (2, 3, 64, 96)."""
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
