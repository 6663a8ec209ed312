"""Optimizers by name, and the learning rate as a function of the step alone."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from hybrid_backbones import Backbone
from segnetr.config.schema.segmentation import LoopConfig

Schedule = Callable[[int], float]

# The cosine ends at this share of the highest learning rate.
FINAL_SHARE = 0.01
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def build_optimizer(
    model: nn.Module, config: LoopConfig, *, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Build an optimizer over the trainable parameters of a network.

    "adamw" decouples the decay of weights (Loshchilov and Hutter, arXiv:1711.05101), "adam" and
    "sgd" add it to the gradient. What is decayed: see `split_parameters`.

    Args:
        model: The network.
        config: Optimizer, highest learning rate, decay.
        factors: What the learning rate of a parameter is multiplied by, by its name in the network;
            1 where it is not named. See `segnetr.engine.training.layer_rates`.

    Raises:
        ValueError: If a name is none of the network's.
    """
    known = dict(model.named_parameters())
    unknown = [name for name in factors or {} if name not in known]
    if unknown:
        raise ValueError(f"the network has no parameter {unknown[0]!r}")
    by_id = {id(known[name]): factor for name, factor in (factors or {}).items()}
    groups = []
    for parameters, decay in zip(split_parameters(model), (config.weight_decay, 0.0), strict=True):
        used = sorted({by_id.get(id(parameter), 1.0) for parameter in parameters})
        groups += [
            {
                "params": [p for p in parameters if by_id.get(id(p), 1.0) == factor],
                "weight_decay": decay,
                "factor": factor,
            }
            for factor in used
        ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=_MOMENTUM, nesterov=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Divide the trainable parameters into those that are decayed and those that are not.

    Not decayed are biases, the parameters of norms, vectors and single numbers, also where they
    carry further axes of length 1 as temperatures do, and what a backbone lists as
    `no_weight_decay`.
    """
    spared = {id(parameter) for parameter in _list_spared(model)}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rpartition(".")[2] == "bias"
        is_free = parameter.ndim <= 1 or is_bias or id(parameter) in spared
        (free if is_free else decayed).append(parameter)
    return decayed, free


def _list_spared(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _NORMS):
            yield from own
        elif not type(module).__module__.startswith("torch."):
            # A kernel or matrix of torch's with one long axis is still a kernel.
            yield from (p for p in own if sum(side > 1 for side in p.shape) <= 1)
        if isinstance(module, Backbone):
            ends = tuple(f".{name}" for name in module.no_weight_decay)
            yield from (p for name, p in module.named_parameters() if f".{name}".endswith(ends))


def count_steps_per_epoch(config: LoopConfig, *, cases: int, world: int) -> int:
    """Give the optimizer steps of one pass over the training cases."""
    return math.ceil(cases / (config.batch_size * config.accumulate * world))


def count_steps(config: LoopConfig, *, cases: int, world: int) -> int:
    """Give the optimizer steps of a whole training."""
    if config.steps is not None:
        return config.steps
    return config.epochs * count_steps_per_epoch(config, cases=cases, world=world)


def build_schedule(config: LoopConfig, total_steps: int) -> Schedule:
    """Build the learning rate of a step, 0 to `total_steps` - 1.

    It rises linearly for `config.warmup_steps` (half of a training at the most, so that short ones
    reach it) to `config.lr`, and then stays, or falls as a cosine to a hundredth at the last step.
    """
    warmup = min(config.warmup_steps, total_steps // 2)
    falling = max(1, total_steps - 1 - warmup)

    def rate(step: int) -> float:
        if step < warmup:
            return config.lr * (step + 1) / (warmup + 1)
        if config.schedule == "constant":
            return config.lr
        done = min(1.0, (step - warmup) / falling)
        share = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return config.lr * share

    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use one learning rate for all parameters, times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
