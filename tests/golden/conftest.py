"""Recorded numbers of the published networks: the same weights and image must give the same maps.

Weights and image come from a formula of key, shape and index; `*.keys.tsv` holds the key layout of
the published checkpoints, `*.npz` what the published code computed from them in float64.
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
    """Return the float64 array that the formula puts into an entry of a state dict."""
    draw = np.random.Generator(np.random.PCG64(_seed(key)))
    if len(shape) >= 2:
        values = draw.standard_normal(shape)
        values *= 0.8 / np.sqrt(np.prod(shape[1:]))  # in place: the largest are gigabytes
        return values
    if key.endswith("running_var"):
        return 0.5 + draw.random(shape)
    if key.endswith("weight"):
        return 1 + 0.1 * draw.standard_normal(shape)
    return 0.1 * draw.standard_normal(shape)


@dataclass(frozen=True, slots=True)
class Golden:
    """One record.

    Attributes:
        name: Its name.
        figures: What was recorded.
        keys: Name of the record whose key layout holds (a record at another size has no keys).
    """

    name: str
    figures: dict[str, np.ndarray]
    keys: str

    @property
    def meta(self) -> dict[str, Any]:
        """Reference, resolution, gain and exceptions."""
        return json.loads(str(self.figures["meta"]))

    def state_dict(self) -> dict[str, Tensor]:
        """The floating entries of the published checkpoint, float64, in its own key layout."""
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
        """The formula's image (N, C, H, W), float64."""
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
            places = np.linspace(0, flat.size - 1, 64).astype(np.int64)
            np.testing.assert_allclose(
                flat[places], record["strided64"], rtol=0, atol=tolerance * scale
            )

        if "proj" in record:
            # Every value counts, each with a weight of its own: a scrambled layout shows.
            draw = np.random.Generator(np.random.PCG64(_seed(f"proj:{name}")))
            mixed = flat @ draw.standard_normal(flat.size) / np.sqrt(flat.size)
            assert abs(mixed - record["proj"]) <= tolerance * scale

    @staticmethod
    def _close(value: Tensor, first: np.ndarray, length: np.ndarray, tolerance: float) -> None:
        flat = value.detach().numpy().ravel()
        scale = max(float(np.abs(first).max()), 1e-12)
        # Logits are recorded as the first 64 of each image, maps as the first 64 of all.
        rows = flat.reshape(first.shape[0], -1) if first.ndim == 2 else flat
        np.testing.assert_allclose(
            rows[..., : first.shape[-1]], first, rtol=0, atol=tolerance * scale
        )
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), length, rtol=tolerance)


# What draws weights; norms keep their ones and zeros.
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
    """Leave fresh weights as the memory is: to draw those of a large network takes seconds.

    Every entry comes from the record, and loading is strict.
    """
    for name in DRAWS:
        monkeypatch.setattr(torch.nn.init, name, lambda tensor, *_, **__: tensor)


class GoldenFigures:
    """The bare figures of a record, and the formula, for records that are no networks."""

    fill = staticmethod(_fill)

    def __call__(self, name: str) -> dict[str, np.ndarray]:
        """Read a record by name."""
        with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}


@pytest.fixture(scope="session")
def golden_figures() -> GoldenFigures:
    """Return what opens records by name."""
    return GoldenFigures()


@pytest.fixture
def golden(golden_figures: GoldenFigures) -> Callable[..., Golden]:
    """Open a record by name; `keys` names the record with the key layout where it has none."""

    def load(name: str, keys: str | None = None) -> Golden:
        return Golden(name, golden_figures(name), keys or name)

    return load
