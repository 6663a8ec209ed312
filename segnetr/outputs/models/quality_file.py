"""Read and write the quality estimator of a model folder.

`quality.json` contains the settings and small tables, `quality.safetensors` the statistics of the
training set. Both are listed in the manifest of the folder and are optional.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, FiniteFloat, TypeAdapter
from pydantic.dataclasses import dataclass

from segnetr.engine.quality.dice_regression import DiceRegression
from segnetr.engine.quality.estimator import CalibrationCase, OODDetector, QualityModel
from segnetr.engine.quality.ood import MahalanobisDetector
from segnetr.engine.quality.probability_features import FEATURES, VIEWS_FEATURE
from segnetr.errors import ModelFileError
from segnetr.outputs.models.model_file import (
    CARD_NAME,
    WEIGHTS_NAME,
    find_model_folder,
    read_card_file,
)
from segnetr.storage.manifest import replace_folder, verify_manifest, write_bytes, write_json

QUALITY_NAME = "quality.json"
CLOUDS_NAME = "quality.safetensors"

_STRICT = ConfigDict(extra="forbid")
_CLOUDS = ("intensity", "embedding")
_WAY_OUT = "copy the folder again, train again, or predict with --no-quality"

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Numbers = tuple[FiniteFloat, ...]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StoredCase:
    """Stored form of `CalibrationCase`."""

    case_id: Annotated[str, Field(max_length=1000)]
    dice: Share
    predicted: Share


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class StoredQuality:
    """Stored form of `QualityModel`, without its distributions."""

    level: Annotated[str, Field(max_length=300)]
    temperature: _Positive
    features: tuple[Annotated[str, Field(max_length=40)], ...]
    center: Numbers
    scale: tuple[_Positive, ...]
    weights: Numbers
    intercept: FiniteFloat
    penalty: _Positive
    interval_level: Share
    radius: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    kind: Literal["image", "volume"]
    spacing: tuple[tuple[_Positive, _Positive], ...] | None
    spacing_factor: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    limits: dict[Literal["intensity", "embedding"], _Positive]
    cases: tuple[StoredCase, ...]
    format_version: Literal[1] = 1


_STORED: TypeAdapter[StoredQuality] = TypeAdapter(StoredQuality)


def add_quality(folder: Path, quality: QualityModel) -> None:
    """Add a quality model to a model folder. Weights and card remain byte for byte the same.

    Raises:
        WriteError: If it cannot be written. The folder is then unchanged.
    """
    clouds: dict[str, NDArray[Any]] = {}
    for name, cloud in quality.ood_detector.densities.items():
        for key in ("center", "scale", "axes", "lengths", "rest"):
            # Copies in C order: safetensors writes the memory of an array as it is.
            clouds[f"{name}.{key}"] = np.array(getattr(cloud, key), dtype=np.float64, order="C")

    def build(aside: Path) -> None:
        for name in (WEIGHTS_NAME, CARD_NAME):
            shutil.copyfile(folder / name, aside / name)
        write_bytes(aside / CLOUDS_NAME, safetensors.numpy.save(clouds))
        write_json(aside / QUALITY_NAME, _STORED.dump_python(_store(quality), mode="json"))

    replace_folder(build, folder)


def has_quality(path: Path) -> bool:
    """Return whether a model has a quality estimator.

    Raises:
        ModelFileError: If there is no model.
    """
    return (find_model_folder(path) / QUALITY_NAME).is_file()


def read_quality(path: Path) -> QualityModel:
    """Read the quality model of a run or model folder that has one.

    Raises:
        ModelFileError: If it is missing, damaged, modified or of another kind.
    """
    folder = find_model_folder(path)
    verify_manifest(folder, required=(QUALITY_NAME, CLOUDS_NAME))
    stored = read_card_file(folder / QUALITY_NAME, _STORED)
    try:
        arrays = safetensors.numpy.load((folder / CLOUDS_NAME).read_bytes())
        clouds = {name: _build_cloud(name, arrays) for name in _CLOUDS}
        return _restore(stored, clouds)
    except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
        detail = " ".join(str(error).split())
        raise ModelFileError(
            f"{folder / CLOUDS_NAME}: does not fit {QUALITY_NAME} ({detail}); {_WAY_OUT}"
        ) from error


def _store(quality: QualityModel) -> StoredQuality:
    known, fit = quality.ood_detector, quality.regression
    return StoredQuality(
        level=quality.level,
        temperature=quality.temperature,
        features=quality.features,
        center=tuple(fit.center.tolist()),
        scale=tuple(fit.scale.tolist()),
        weights=tuple(fit.weights.tolist()),
        intercept=fit.intercept,
        penalty=fit.penalty,
        interval_level=quality.interval_level,
        radius=quality.radius,
        kind=known.kind,
        spacing=known.spacing,
        spacing_factor=known.spacing_factor,
        limits=dict(known.limits),  # type: ignore[arg-type]
        cases=tuple(StoredCase(**asdict(case)) for case in quality.cases),
    )


def _restore(stored: StoredQuality, clouds: Mapping[str, MahalanobisDetector]) -> QualityModel:
    width = len(stored.features)
    lengths = {len(stored.center), len(stored.scale), len(stored.weights)}
    if lengths != {width} or stored.features not in (FEATURES, (*FEATURES, VIEWS_FEATURE)):
        raise ValueError("its features do not match its regression")
    if set(stored.limits) != set(clouds):
        raise ValueError("its limits do not match its distributions")
    return QualityModel(
        level=stored.level,
        temperature=stored.temperature,
        features=stored.features,
        regression=DiceRegression(
            center=np.array(stored.center),
            scale=np.array(stored.scale),
            weights=np.array(stored.weights),
            intercept=stored.intercept,
            penalty=stored.penalty,
        ),
        interval_level=stored.interval_level,
        radius=stored.radius,
        ood_detector=OODDetector(
            kind=stored.kind,
            spacing=stored.spacing,
            spacing_factor=stored.spacing_factor,
            densities=clouds,
            limits={str(name): limit for name, limit in stored.limits.items()},
        ),
        cases=tuple(
            CalibrationCase(case_id=case.case_id, dice=case.dice, predicted=case.predicted)
            for case in stored.cases
        ),
    )


def _build_cloud(name: str, arrays: Mapping[str, NDArray[Any]]) -> MahalanobisDetector:
    """Check the numbers of a cloud, so that no distance becomes NaN later.

    Raises:
        KeyError: If an array is missing.
        ValueError: If the shapes do not match, or a width is not above 0.
    """
    # Version 0.1 wrote "centre".
    arrays = {key.replace(".centre", ".center"): value for key, value in arrays.items()}
    keys = ("center", "scale", "axes", "lengths", "rest")
    center, scale, axes, lengths, rest = (arrays[f"{name}.{key}"] for key in keys)
    shapes = (center.shape, scale.shape, axes.shape, lengths.shape, rest.shape)
    width, components = (center.size,), (lengths.size,)
    fits = shapes == (width, width, components + width, components, ())
    values = (center, scale, axes, lengths, rest)
    if not fits or any(array.dtype != np.float64 for array in values):
        raise ValueError(f"{name} has arrays of other shapes")
    if not all(np.isfinite(array).all() for array in values):
        raise ValueError(f"{name} contains NaN")
    if not all((array > 0).all() for array in (scale, lengths, rest)):
        raise ValueError(f"{name} has a width that is not above 0")
    return MahalanobisDetector(
        center=center, scale=scale, axes=axes, lengths=lengths, rest=float(rest)
    )
