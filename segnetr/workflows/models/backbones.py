"""`segnetr models`: the published backbones of `hybrid_backbones`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybrid_backbones import ModelSpec, get_spec, list_models
from segnetr.workflows.outcome import PlainTable

_BRIEF = ("name", "params_m", "gmac", "image_size", "strides", "channels", "top1", "trained_on")


def backbone_facts(entry: ModelSpec) -> dict[str, Any]:
    """Return the registry entry of a variant as plain data; GMACs are those at `image_size`."""
    return {
        "name": entry.name,
        "parameters": entry.parameters,
        "params_m": round(entry.parameters / 1e6, 2),
        "gmac": entry.gmacs,
        "image_size": entry.image_size,
        "strides": list(entry.strides),
        "channels": list(entry.channels),
        "top1": entry.top1,
        "trained_on": entry.trained_on,
        "mean": list(entry.normalization.mean),
        "std": list(entry.normalization.std),
        "paper": entry.paper,
        "code": entry.code,
        "weights_license": entry.weights_license,
    }


def list_backbones() -> list[dict[str, Any]]:
    """Return the facts of every variant, ordered by name."""
    return [backbone_facts(get_spec(name)) for name in list_models()]


def brief_table() -> PlainTable:
    """Return a table of the columns that fit a terminal."""
    rows = [{key: _brief(facts[key]) for key in _BRIEF} for facts in list_backbones()]
    return PlainTable(name="backbones", rows=rows)


def backbone_markdown() -> str:
    """Return the facts as the tables of docs/backbones.md."""
    head = ("`--backbone`", "parameters", "GMAC at", "strides: channels", "top-1", "trained on")
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    sources: dict[tuple[str, str], list[str]] = {}
    for facts in list_backbones():
        top1 = "" if facts["top1"] is None else f"{facts['top1']:.1f}"
        cells = (
            f"`{facts['name']}`",
            f"{facts['params_m']:.2f} M",
            f"{_three_digits(facts['gmac'])} at {facts['image_size']}",
            f"{_brief(facts['strides'])}: {_brief(facts['channels'])}",
            top1,
            facts["trained_on"],
        )
        lines.append("| " + " | ".join(cells) + " |")
        sources.setdefault((facts["paper"], facts["weights_license"]), []).append(facts["name"])
    lines += ["", "| source | networks | license of the official weights |", "|---|---|---|"]
    for (paper, terms), names in sources.items():
        # The variants of one paper are adjacent, so the first and the last name identify them.
        span = f"`{names[0]}`" if len(names) == 1 else f"`{names[0]}` to `{names[-1]}`"
        lines.append(f"| {paper} | {span} | {terms} |")
    return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackboneCard:
    """Facts and settings of one variant.

    Attributes:
        entry: Its entry in the registry.
    """

    entry: ModelSpec

    def to_dict(self) -> Mapping[str, Any]:
        """Return facts and settings as plain data."""
        return {**backbone_facts(self.entry), "settings": dataclasses.asdict(self.entry.config)}

    def __str__(self) -> str:
        """Return facts and settings as aligned lines."""
        facts = dict(self.to_dict())
        settings = facts.pop("settings")
        facts["parameters"] = f"{facts['parameters']:,}"
        labels = {
            "params_m": "parameters (M = 1e6)",
            "gmac": f"multiply-adds (G) at {facts['image_size']}",
            "top1": "ImageNet top-1 (%)",
        }
        lines = [facts.pop("name")]
        for key, value in facts.items():
            lines.append(f"  {labels.get(key, key.replace('_', ' ')):<34}{_brief(value)}")
        lines += [f"  {key:<34}{_brief(value)}" for key, value in settings.items()]
        return "\n".join(lines)


def show_backbone(name: str) -> BackboneCard:
    """Return the card of one variant of the registry."""
    return BackboneCard(entry=get_spec(name))


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _brief(value: Any) -> Any:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else value
