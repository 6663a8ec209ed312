"""The order of a backbone's parameters between image and logits.

Layer-wise learning rates (Bao et al., BEiT, arXiv:2106.08254, section 3.2) need the depth of each
parameter. It follows from the structure of all backbones: a root with stages, in a list or as
attributes, and stages with a list of blocks, each in the order in which they run.
"""

from collections.abc import Iterator

from torch import nn

from hybrid_backbones.backbone import Backbone

Layers = tuple[tuple[str, ...], ...]


def list_layers(backbone: Backbone) -> Layers:
    """Return the parameter names of each layer, from the image to the logits.

    A layer is a block. The other parameters of a stage (embeddings, tables and tokens before the
    blocks, merging after them) belong to the nearest block. The parameters of the root before the
    stages, if any, are the first layer.

    Returns:
        Names of parameters, layer by layer, each once. The last entry contains the parameters after
        all stages: those of the head, or none in a backbone without one.
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
    """Split a stage, or a list of stages or blocks, into layers; None for any other module."""
    if isinstance(module, nn.ModuleList):
        parts = [(f"{name}.{index}", item) for index, item in enumerate(module)]
        return [layer for full, item in parts for layer in _split_stage(full, item)]
    return list(_split_stage(name, module)) if _has_list(module) else None


def _split_stage(name: str, stage: nn.Module) -> Iterator[tuple[str, ...]]:
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
    if waiting:  # a stage without blocks, or a block
        yield waiting


def _has_list(module: nn.Module) -> bool:
    return any(isinstance(child, nn.ModuleList) for child in module.children())


def _own_parameters(module: nn.Module, name: str) -> tuple[str, ...]:
    prefix = f"{name}." if name else ""
    return tuple(prefix + own for own, _ in module.named_parameters(recurse=False))


def _parameters(module: nn.Module, name: str) -> tuple[str, ...]:
    return tuple(f"{name}.{own}" for own, _ in module.named_parameters())
