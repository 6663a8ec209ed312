"""Weights of a file put into the network they belong to, and refused where they do not fit it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from segnetr.errors import ModelFileError, SegNetrError

WAY_OUT = "copy the folder again or train anew"
_CARD = "model.json"  # beside the weights; `model_file`, which reads it, stands above this module
_MOST_MESSAGE = 300
_ROOM_WHILE_BUILDING = 2

Network = TypeVar("Network", bound=nn.Module)


def load_into(
    build: Callable[[], Network], state_dict: Mapping[str, Tensor], *, file: Path
) -> Network:
    """Build a network and put weights into it that fit it to the last number.

    Args:
        build: Makes the network that the card describes.
        state_dict: Its weights and buffers.
        file: Where they come from, for messages.

    Returns:
        The network in evaluation mode on the CPU.

    Raises:
        ModelFileError: If it cannot be built, or they do not fit.
    """
    network = _build_within(build, file, limit=sum(t.numel() for t in state_dict.values()))
    _check_fit(network, state_dict, file)
    network.load_state_dict(state_dict)
    return network.eval()


def _build_within(build: Callable[[], Network], file: Path, *, limit: int) -> Network:
    """Build the network, and stop where it grows far beyond the numbers in the file of its weights.

    A card with a width of millions would otherwise fill the memory before anything is compared.
    While it is built a network may have parts that it drops again, as a backbone its classifier.
    """
    count = 0

    def count_parameter(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > _ROOM_WHILE_BUILDING * limit:
            raise ModelFileError(
                f"{file}: fewer weights than the architecture of {_CARD} has; {WAY_OUT}"
            )

    hook = register_module_parameter_registration_hook(count_parameter)
    try:
        # Its random start is not wanted, and must not move the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            return build()
    except ModelFileError:
        raise
    except (SegNetrError, ValueError, TypeError, RuntimeError, MemoryError, OverflowError) as error:
        raise ModelFileError(
            f"{file.with_name(_CARD)}: its architecture cannot be built ({printable(str(error))})"
        ) from error
    finally:
        hook.remove()


def _check_fit(network: nn.Module, state_dict: Mapping[str, Tensor], file: Path) -> None:
    """Compare names, shapes and types, because torch would copy float64 into float32 unasked."""
    expected = network.state_dict()
    missing, foreign = expected.keys() - state_dict.keys(), state_dict.keys() - expected.keys()
    issue = ""
    if missing:
        issue = f"{len(missing)} tensors are missing, such as {min(missing)}"
    elif foreign:
        issue = f"{len(foreign)} tensors are not of this architecture, such as {min(foreign)}"
    for name in sorted(expected) if not issue else ():
        wanted, found = expected[name], state_dict[name]
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            issue = (
                f"{name} is {found.dtype} {tuple(found.shape)} where the architecture has "
                f"{wanted.dtype} {tuple(wanted.shape)}"
            )
            break
    if issue:
        raise ModelFileError(f"{file}: {printable(issue)}; {WAY_OUT}")


def printable(text: str) -> str:
    """Make one line of letters a terminal shows and does not obey, whatever stands in a file."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= _MOST_MESSAGE else f"{line[:_MOST_MESSAGE]}..."
