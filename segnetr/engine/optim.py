"""Optimisers by name, and the learning rate as a function of the step alone."""

import math
from collections.abc import Callable

import torch
from torch import nn

from segnetr.config.schema import LoopConfig

Schedule = Callable[[int], float]

# The cosine ends at this share of the highest learning rate.
FINAL_SHARE = 0.01
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def build_optimizer(model: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """Build an optimiser over the trainable parameters of a network.

    "adamw" decouples the decay of weights (Loshchilov and Hutter, arXiv:1711.05101), "adam" and
    "sgd" add it to the gradient. Biases, parameters of norms and everything with one dimension are
    never decayed.
    """
    decayed, free = split_parameters(model)
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=_MOMENTUM, nesterov=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr)


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Divide the trainable parameters into those that are decayed and those that are not."""
    spared = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, _NORMS)
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rpartition(".")[2] == "bias"
        is_free = parameter.ndim <= 1 or is_bias or id(parameter) in spared
        (free if is_free else decayed).append(parameter)
    return decayed, free


def count_steps_per_epoch(config: LoopConfig, *, cases: int, world: int) -> int:
    """Give the optimiser steps of one pass over the training cases."""
    return math.ceil(cases / (config.batch_size * config.accumulate * world))


def count_steps(config: LoopConfig, *, cases: int, world: int) -> int:
    """Give the optimiser steps of a whole training."""
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
    """Use one learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
