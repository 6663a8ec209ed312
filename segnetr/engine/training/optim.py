"""Optimizers, learning-rate schedules, layer-wise learning rates and optimizer state."""

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from hybrid_backbones import Backbone, list_layers
from segnetr.config.schema.segmentation import LoopConfig

Schedule = Callable[[int], float]

# The cosine schedule ends at this share of the highest learning rate.
FINAL_SHARE = 0.01
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def build_optimizer(
    model: nn.Module, config: LoopConfig, *, factors: Mapping[str, float] | None = None
) -> torch.optim.Optimizer:
    """Build an optimizer over the trainable parameters of a network.

    "adamw" uses decoupled weight decay (Loshchilov and Hutter, arXiv:1711.05101); "adam" and "sgd"
    add the decay to the gradient. `split_parameters` chooses which parameters are decayed.

    Args:
        model: The network.
        config: Optimizer, highest learning rate, weight decay.
        factors: Learning-rate factors by parameter name, 1 for parameters that are not listed; see
            `layer_factors`.

    Raises:
        ValueError: If the network has no parameter of a listed name.
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
    """Split the trainable parameters into those with and those without weight decay.

    Biases, parameters of norms, vectors and scalars are not decayed, also if they have additional
    axes of length 1, as temperatures do. Neither are the parameters that a backbone lists as
    `no_weight_decay`.

    Returns:
        The decayed and the other parameters.
    """
    excluded = {id(parameter) for parameter in _list_no_decay(model)}
    decayed: list[nn.Parameter] = []
    not_decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_bias = name.rpartition(".")[2] == "bias"
        # The vectors of torch's own modules, as the slopes of PReLU.
        is_vector = parameter.ndim <= 1
        is_excluded = is_bias or is_vector or id(parameter) in excluded
        (not_decayed if is_excluded else decayed).append(parameter)
    return decayed, not_decayed


def _list_no_decay(model: nn.Module) -> Iterator[nn.Parameter]:
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, _NORMS):
            yield from own
        elif not type(module).__module__.startswith("torch."):
            # In torch's own modules, a kernel or matrix with a single long axis is still a kernel.
            yield from (p for p in own if sum(side > 1 for side in p.shape) <= 1)
        if isinstance(module, Backbone):
            ends = tuple(f".{name}" for name in module.no_weight_decay)
            yield from (p for name, p in module.named_parameters() if f".{name}".endswith(ends))


def layer_factors(
    model: nn.Module, *, decay: float = 1.0, encoder: float = 1.0
) -> dict[str, float]:
    """Return layer-wise learning-rate factors for the backbones in a network.

    The last block of a backbone gets `encoder * decay`, the block before it `encoder * decay**2`,
    and so on. The head of a backbone and everything outside of backbones (the decoder of a
    segmentation network) train at the full rate.

    Source: Bao et al., BEiT: BERT Pre-Training of Image Transformers, ICLR 2022, arXiv:2106.08254,
    section 3.2.

    Args:
        model: A network that is or contains a backbone.
        decay: Learning rate of a layer divided by that of the next layer.
        encoder: Factor for all layers except the head, for a pretrained encoder.

    Returns:
        Factors by parameter name in `model`, without those that are 1.
    """
    factors: dict[str, float] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, Backbone):
            continue
        *layers, _ = list_layers(module)
        for distance, names in enumerate(reversed(layers), start=1):
            factor = encoder * decay**distance
            if factor != 1.0:
                factors.update({f"{prefix}.{name}" if prefix else name: factor for name in names})
    return factors


def count_steps_per_epoch(config: LoopConfig, *, cases: int, world: int) -> int:
    """Return the number of optimizer steps in one pass over the training cases."""
    return math.ceil(cases / (config.batch_size * config.accumulate * world))


def count_steps(config: LoopConfig, *, cases: int, world: int) -> int:
    """Return the number of optimizer steps of a whole training."""
    if config.steps is not None:
        return config.steps
    return config.epochs * count_steps_per_epoch(config, cases=cases, world=world)


def build_schedule(config: LoopConfig, total_steps: int) -> Schedule:
    """Return a function from a step, 0 to `total_steps` - 1, to its learning rate.

    The rate rises linearly to `config.lr` for `config.warmup_steps`, at most half of the training,
    so that short trainings reach it. Then it stays constant, or decays as a cosine to a hundredth
    at the last step.
    """
    warmup = min(config.warmup_steps, total_steps // 2)
    decay_steps = max(1, total_steps - 1 - warmup)

    def rate(step: int) -> float:
        if step < warmup:
            return config.lr * (step + 1) / (warmup + 1)
        if config.schedule == "constant":
            return config.lr
        done = min(1.0, (step - warmup) / decay_steps)
        share = FINAL_SHARE + (1 - FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2
        return config.lr * share

    return rate


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group, multiplied by the factor of the group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def name_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """Return every tensor of the optimizer state as `KEY.PARAMETER`, by parameter name.

    Learning rates are not part of the state, because they are a function of the step.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"{key}.{names[id(parameter)]}": value
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
        if isinstance(value, Tensor)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]
) -> None:
    """Load named tensors into an optimizer that is built like the one they were saved from.

    Raises:
        KeyError: If a tensor belongs to no parameter of the network.
    """
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition(".")
        parameter = parameters[name]
        optimizer.state[parameter][key] = tensor if key == "step" else _like(parameter, tensor)


def _like(parameter: nn.Parameter, tensor: Tensor) -> Tensor:
    """Copy to the device and memory layout of the parameter; other layouts round differently."""
    return torch.empty_like(parameter, requires_grad=False).copy_(tensor)
