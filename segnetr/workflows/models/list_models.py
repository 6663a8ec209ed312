"""`segnetr models`: the networks, their cost, and their published results."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segnetr.config.load import list_recipes, load_config, to_plain
from segnetr.config.schema.segmentation import RunConfig
from segnetr.errors import unknown_name
from segnetr.workflows.outcome import Outcome, PlainTable

_MEBI = 2**20
_INPUT = (1, 3, 224, 224)

# Cheng et al., SegNetr, MICCAI 2023, table 1; "M" there is 2^20, GFLOPs are multiply-adds as the
# tool thop counts them (it counts a transposed convolution of stride 2 four times).
_PUBLISHED = {
    "segnetr": {"params_mi": 12.26, "gmac": 10.18},
    "segnetr_s": {"params_mi": 3.60, "gmac": 2.71},
    "unet": {"params_mi": 29.59, "gmac": 41.83},
    "unext": {"params_mi": 1.40, "gmac": 0.44},
    "unext_l": {"params_mi": 3.80, "gmac": 1.08},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCost:
    """Settings and cost of one network at 3 x 224 x 224, and its published results.

    Attributes:
        name: Name of the recipe.
        settings: The resolved model section.
        parameters: Number of trainable parameters.
        macs: Multiply-adds per image.
        parts: Number of parameters of each child module.
    """

    name: str
    settings: Mapping[str, Any]
    parameters: int
    macs: int
    parts: Mapping[str, int]

    def to_dict(self) -> Mapping[str, Any]:
        """Return everything as plain data."""
        return {
            "name": self.name,
            "settings": dict(self.settings),
            "parameters": self.parameters,
            "params_mi": round(self.parameters / _MEBI, 2),
            "gmac": round(self.macs / 1e9, 2),
            "published": _PUBLISHED.get(self.name),
            "parts": dict(self.parts),
        }

    def __str__(self) -> str:
        """Return the cost and the published cost as aligned lines."""
        published = _PUBLISHED.get(self.name)
        rows = [
            ("parameters (Mi = 2^20)", f"{self.parameters / _MEBI:.2f}", "params_mi"),
            ("multiply-adds (G) at 3x224x224", f"{self.macs / 1e9:.2f}", "gmac"),
        ]
        lines = [self.name, f"  {'parameters':<34}{self.parameters:,}"]
        for label, ours, key in rows:
            theirs = f"   published {published[key]:.2f}" if published else ""
            lines.append(f"  {label:<34}{ours}{theirs}")
        lines += [f"  {part:<34}{count:,}" for part, count in self.parts.items()]
        lines += [f"  {key:<34}{value}" for key, value in self.settings.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelList:
    """The segmentation networks with their measured cost, and the backbones as published.

    Attributes:
        models: Table of the segmentation networks.
    """

    models: PlainTable

    def to_dict(self) -> Mapping[str, Any]:
        """Return both tables as plain data."""
        from segnetr.workflows.models.backbones import list_backbones

        return {**self.models.to_dict(), "backbones": list_backbones()}

    def __str__(self) -> str:
        """Return both tables as text."""
        from segnetr.workflows.models.backbones import brief_table

        return (
            f"segmentation networks (--model) at 3x224x224\n\n{self.models}\n\n"
            "backbones at their published image size (details: segnetr models show NAME)\n\n"
            f"{brief_table()}"
        )


def list_models() -> ModelList:
    """Return the cost of every packaged network at 3 x 224 x 224 with two classes."""
    rows = []
    for name in list_recipes("model"):
        cost = _count_model(name).to_dict()
        published = cost["published"] or {}
        rows.append(
            {
                "name": name,
                "params_m": round(cost["parameters"] / 1e6, 3),
                "params_mi": cost["params_mi"],
                "gmac": cost["gmac"],
                "published_mi": published.get("params_mi"),
                "published_gmac": published.get("gmac"),
            }
        )
    return ModelList(models=PlainTable(name="models", rows=rows))


def show_model(name: str) -> Outcome:
    """Return the cost of a packaged network, or the facts of a backbone.

    Raises:
        UsageError: If there is no such network; the message names the closest one.
    """
    from hybrid_backbones import list_models as list_backbones
    from segnetr.workflows.models.backbones import show_backbone

    recipes, backbones = list_recipes("model"), list_backbones()
    if name in backbones:
        return show_backbone(name)
    if name not in recipes:
        raise unknown_name("model", name, [*recipes, *backbones], see="segnetr models list")
    return _count_model(name)


def _count_model(name: str) -> ModelCost:
    config: RunConfig = load_config([f"model/{name}"])
    from segnetr.models.build import build_model
    from segnetr.models.cost import count_macs, count_parameters

    model = build_model(config.model, in_channels=3, num_classes=2, image_size=_INPUT[2:])
    return ModelCost(
        name=name,
        settings=to_plain(config.model),
        parameters=count_parameters(model),
        macs=count_macs(model, _INPUT),
        parts={part: count_parameters(module) for part, module in model.named_children()},
    )
