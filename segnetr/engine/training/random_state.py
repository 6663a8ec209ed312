"""Capture and restore the random generators of a process."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomState:
    """State of the random generators of one process.

    Attributes:
        python: State of `random`: version, words, cached Gaussian.
        numpy: State of numpy's legacy generator: words, position, cached Gaussian.
        torch_cpu: State of torch's generator on the CPU, uint8.
        torch_cuda: States of torch's generators on the GPUs, uint8 each.
    """

    python: Mapping[str, Any]
    numpy: Mapping[str, Any]
    torch_cpu: Tensor
    torch_cuda: tuple[Tensor, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Return the state as plain data for JSON."""
        return {
            "python": dict(self.python),
            "numpy": dict(self.numpy),
            "torch_cpu": _to_hex(self.torch_cpu),
            "torch_cuda": [_to_hex(state) for state in self.torch_cuda],
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "RandomState":
        """Build the state from the result of `to_plain`."""
        return cls(
            python=plain["python"],
            numpy=plain["numpy"],
            torch_cpu=_from_hex(plain["torch_cpu"]),
            torch_cuda=tuple(_from_hex(state) for state in plain["torch_cuda"]),
        )


def seed_generators(seed: int) -> None:
    """Seed the generators of python, numpy and torch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the generator of third-party code
    torch.manual_seed(seed)


def capture_random() -> RandomState:
    """Return the state of the generators of this process."""
    version, words, kept = random.getstate()
    _, keys, position, has_kept, numpy_kept = np.random.get_state(legacy=True)  # noqa: NPY002
    return RandomState(
        python={"version": version, "words": list(words), "kept": kept},
        numpy={
            "words": [int(key) for key in keys],
            "position": int(position),
            "has_kept": int(has_kept),
            "kept": float(numpy_kept),
        },
        torch_cpu=torch.get_rng_state(),
        torch_cuda=tuple(torch.cuda.get_rng_state_all()) if _uses_cuda() else (),
    )


def restore_random(state: RandomState) -> None:
    """Restore the generators of this process."""
    python, numpy = state.python, state.numpy
    random.setstate((python["version"], tuple(python["words"]), python["kept"]))
    words = np.array(numpy["words"], dtype=np.uint32)
    np.random.set_state(  # noqa: NPY002
        ("MT19937", words, numpy["position"], numpy["has_kept"], numpy["kept"])
    )
    torch.set_rng_state(state.torch_cpu)
    if state.torch_cuda and torch.cuda.device_count() == len(state.torch_cuda):
        torch.cuda.set_rng_state_all(list(state.torch_cuda))


def _uses_cuda() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()


def _to_hex(state: Tensor) -> str:
    return bytes(state.tolist()).hex()


def _from_hex(text: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
