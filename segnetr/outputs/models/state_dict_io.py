"""Load weights into a network, and reject weights that do not match it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from segnetr.errors import ModelFileError, SegNetrError

WAY_OUT = "copy the folder again or train again"
_CARD = "model.json"  # read by `model_file`, which imports this module
_MOST_MESSAGE = 300
_ROOM_WHILE_BUILDING = 2

_Network = TypeVar("_Network", bound=nn.Module)


def load_into(
    build: Callable[[], _Network], state_dict: Mapping[str, Tensor], *, file: Path
) -> _Network:
    """Build a network and load weights that match it exactly.

    Args:
        build: Builds the network described by the card.
        state_dict: Its weights and buffers.
        file: File of the weights, for messages.

    Returns:
        The network in evaluation mode on the CPU.

    Raises:
        ModelFileError: If it cannot be built, or the weights do not match.
    """
    network = _build_within(build, file, limit=sum(t.numel() for t in state_dict.values()))
    _check_fit(network, state_dict, file)
    network.load_state_dict(state_dict)
    return network.eval()


def _build_within(build: Callable[[], _Network], file: Path, *, limit: int) -> _Network:
    """Build the network, and stop if it has far more parameters than the file has numbers.

    A card with a width of millions would otherwise exhaust the memory before anything is compared.
    The limit allows for modules that are removed after construction, such as a classifier.
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
        # The random initialization must not advance the caller's random state.
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
    """Compare names, shapes and types, since torch would silently copy float64 to float32."""
    expected = network.state_dict()
    missing, unexpected = expected.keys() - state_dict.keys(), state_dict.keys() - expected.keys()
    issue = ""
    if missing:
        issue = f"{len(missing)} tensors are missing, such as {min(missing)}"
    elif unexpected:
        issue = f"{len(unexpected)} tensors are not of this architecture, such as {min(unexpected)}"
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
    """Return text as one line without control characters, safe to print for any file content."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= _MOST_MESSAGE else f"{line[:_MOST_MESSAGE]}..."
