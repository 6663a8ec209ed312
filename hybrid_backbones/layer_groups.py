"""In which order the parameters of a backbone stand between image and logits.

Layer-wise learning rates (Bao et al., BEiT, arXiv:2106.08254, section 3.2) need a number for each
parameter. It follows from how all backbones here are written: a root that holds stages in a list
or one by one, stages that hold blocks in a list, each in the order in which they run.
"""

from collections.abc import Iterator

from torch import nn

from hybrid_backbones.backbone import Backbone

Layers = tuple[tuple[str, ...], ...]


def list_layers(backbone: Backbone) -> Layers:
    """Name the parameters of each layer, from the image to the logits.

    A layer is a block. What a stage holds besides its blocks (embeddings, tables and tokens before
    them, merging behind them) belongs to the nearest of them; what the root holds in front of the
    stages is the first layer, where it holds anything.

    Returns:
        Names of parameters, layer by layer; every parameter once. The last entry is what stands
        behind all stages: the head, or nothing in a backbone without one.
    """
    layers: list[tuple[str, ...]] = []
    between = _own_parameters(backbone, "")
    for name, child in backbone.named_children():
        blocks = _list_blocks(name, child)
        if blocks is None:
            between += _parameters(child, name)
            continue
        layers += [between, *blocks] if between else blocks
        between = ()
    return (*layers, between)


def _list_blocks(name: str, module: nn.Module) -> list[tuple[str, ...]] | None:
    """Cut a stage, or a list of stages or blocks, into layers; None: it is neither."""
    if isinstance(module, nn.ModuleList):
        parts = [(f"{name}.{index}", item) for index, item in enumerate(module)]
        return [layer for full, item in parts for layer in _cut_stage(full, item)]
    return list(_cut_stage(name, module)) if _has_list(module) else None


def _cut_stage(name: str, stage: nn.Module) -> Iterator[tuple[str, ...]]:
    if isinstance(stage, nn.Sequential):
        yield from (_parameters(block, f"{name}.{index}") for index, block in enumerate(stage))
        return
    blocks: list[tuple[str, ...]] = []
    waiting = _own_parameters(stage, name)
    for part, child in stage.named_children():
        full = f"{name}.{part}"
        if isinstance(child, nn.ModuleList) and len(child):
            items = [_parameters(block, f"{full}.{index}") for index, block in enumerate(child)]
            blocks += [waiting + items[0], *items[1:]]
            waiting = ()
        elif blocks:
            blocks[-1] += _parameters(child, full)
        else:
            waiting += _parameters(child, full)
    yield from blocks
    if waiting:  # a stage without blocks, or a block itself
        yield waiting


def _has_list(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ModuleList) for child in module.children())


def _own_parameters(module: nn.Module, name: str) -> tuple[str, ...]:
    prefix = f"{name}." if name else ""
    return tuple(prefix + own for own, _ in module.named_parameters(recurse=False))


def _parameters(module: nn.Module, name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{own}" for own, _ in module.named_parameters())
