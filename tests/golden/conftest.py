"""Compare networks with recorded outputs of the published code for the same weights and image.

Weights and image are a function of key, shape and index. `*.keys.tsv` contains the key layout of
the published checkpoints, `*.npz` the float64 outputs of the published code.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

FOLDER = Path(__file__).resolve().parent / "records"


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def _fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the float64 array of the formula for an entry of a state dict."""
    draw = np.random.Generator(np.random.PCG64(_seed(key)))
    if len(shape) >= 2:
        values = draw.standard_normal(shape)
        values *= 0.8 / np.sqrt(
            np.prod(shape[1:])
        )  # in place, because the largest arrays have gigabytes
        return values
    if key.endswith("running_var"):
        return 0.5 + draw.random(shape)
    if key.endswith("weight"):
        return 1 + 0.1 * draw.standard_normal(shape)
    return 0.1 * draw.standard_normal(shape)


@dataclass(frozen=True, slots=True)
class Golden:
    """The recorded outputs of one network.

    Attributes:
        name: Name of the record.
        figures: Recorded arrays.
        keys: Name of the record with the key layout (a record at another size has no keys).
    """

    name: str
    figures: dict[str, np.ndarray]
    keys: str

    @property
    def meta(self) -> dict[str, Any]:
        """Return reference, resolution, gain and exceptions."""
        return json.loads(str(self.figures["meta"]))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the floating-point entries of the published checkpoint (float64, its keys)."""
        gain = float(self.meta.get("gain", 1.0))
        state = {}
        for line in (FOLDER / f"{self.keys}.keys.tsv").read_text().splitlines()[1:]:
            key, shape, dtype = line.split("\t")[:3]
            if "float" not in dtype or key.endswith("attn_mask"):
                continue
            sides = tuple(int(side) for side in shape.strip("[]").split(",") if side)
            values = np.asarray(_fill(key, sides))
            if len(sides) >= 2:
                values *= gain
            state[key] = torch.from_numpy(values.reshape(sides))
        return state

    def image(self) -> Tensor:
        """Return the image of the formula (N, C, H, W) in float64."""
        shape = tuple(int(side) for side in self.figures["input_shape"])
        values = np.random.Generator(np.random.PCG64(1234)).standard_normal(shape)
        if "input_first8" in self.figures:
            np.testing.assert_array_equal(values.ravel()[:8], self.figures["input_first8"])
        return torch.from_numpy(values)

    def check_logits(self, logits: Tensor, tolerance: float = 1e-9) -> None:
        """Compare logits (N, classes) with the recorded ones, relative to their size."""
        assert tuple(logits.shape) == tuple(self.figures["logits_shape"])
        self._close(logits, self.figures["logits_first64"], self.figures["logits_l2"], tolerance)

    def check_feature(self, name: str, value: Tensor, tolerance: float = 1e-9) -> None:
        """Compare one recorded map (N, C, H, W) or token tensor (N, T, D)."""
        record = {
            key.removeprefix(f"feat.{name}."): figure
            for key, figure in self.figures.items()
            if key.startswith(f"feat.{name}.")
        }
        assert record, f"{self.name} has no feature {name!r}: {list(self.figures['features'])}"
        assert tuple(value.shape) == tuple(record["shape"])
        self._close(value, record["first64"], record["l2"], tolerance)
        flat = value.detach().numpy().ravel()
        scale = max(float(np.abs(flat).max()), 1e-12)
        assert abs(flat.mean() - record["mean"]) <= tolerance * scale
        assert abs(flat.std() - record["std"]) <= tolerance * scale
        if "strided64" in record:
            positions = np.linspace(0, flat.size - 1, 64).astype(np.int64)
            np.testing.assert_allclose(
                flat[positions], record["strided64"], rtol=0, atol=tolerance * scale
            )

        if "proj" in record:
            # Every value has its own weight, so that a permuted layout is detected.
            draw = np.random.Generator(np.random.PCG64(_seed(f"proj:{name}")))
            mixed = flat @ draw.standard_normal(flat.size) / np.sqrt(flat.size)
            assert abs(mixed - record["proj"]) <= tolerance * scale

    @staticmethod
    def _close(value: Tensor, first: np.ndarray, length: np.ndarray, tolerance: float) -> None:
        flat = value.detach().numpy().ravel()
        scale = max(float(np.abs(first).max()), 1e-12)
        # The first 64 logits of each image are recorded, and the first 64 values of a map.
        rows = flat.reshape(first.shape[0], -1) if first.ndim == 2 else flat
        np.testing.assert_allclose(
            rows[..., : first.shape[-1]], first, rtol=0, atol=tolerance * scale
        )
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), length, rtol=tolerance)


# Functions that initialize weights randomly. Norms are still initialized to ones and zeros.
DRAWS = (
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "orthogonal_",
    "trunc_normal_",
    "uniform_",
)


@pytest.fixture(autouse=True)
def _no_initialization(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave new weights uninitialized, because initializing a large network takes seconds.

    Every entry is loaded from the record with strict loading.
    """
    for name in DRAWS:
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


class GoldenFigures:
    """Access recorded arrays and the formula for records that are not networks."""

    fill = staticmethod(_fill)

    def __call__(self, name: str) -> dict[str, np.ndarray]:
        """Read a record by name."""
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="session")
def golden_figures() -> GoldenFigures:
    """Return a function that opens records by name."""
    return GoldenFigures()


@pytest.fixture
def golden(golden_figures: GoldenFigures) -> Callable[..., Golden]:
    """Open a record by name. `keys` is the record with the key layout if it has none."""

    def load(name: str, keys: str | None = None) -> Golden:
        return Golden(name, golden_figures(name), keys or name)

    return load
