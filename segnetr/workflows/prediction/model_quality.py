"""Decide whether a model can estimate the quality of its masks, and explain if it cannot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import PredictConfig
from segnetr.data.case import Case
from segnetr.engine.inference.predictor import Prediction, Predictor, Quality
from segnetr.outputs.models.model_file import read_card
from segnetr.workflows.prediction.ensemble import Ensemble, expand_folds

_MASK_SETTINGS = ("mode", "overlap", "weights", "tta", "threshold", "postprocessing")
"""Settings that change masks, and therefore their quality."""


def wants_quality(paths: Sequence[Path], changes: Mapping[str, Any]) -> bool:
    """Return whether quality is to be estimated: as the user requests, else as the models say."""
    if "quality" in changes:
        return bool(changes["quality"])
    return all(read_card(path).predict.quality for path in expand_folds(paths))


def find_obstacle(
    paths: Sequence[Path], *, ensemble: Ensemble, changes: Mapping[str, Any]
) -> str | None:
    """Return one line that explains why quality cannot be estimated, or None if it can.

    Args:
        paths: The models, as the user named them.
        ensemble: How several models are combined.
        changes: Settings that override the models' own `predict` section.

    Raises:
        ModelFileError: If there is no such model.
    """
    from segnetr.outputs.models.quality_file import has_quality

    if ensemble == "soup":
        return "no predicted Dice: averaged weights (soup) were not calibrated on validation cases"
    for path in expand_folds(paths):
        if not has_quality(path):
            return (
                f"no predicted Dice: {path} was trained without it (too few validation cases, "
                "predict.quality=false, or an earlier version)"
            )
        for name, known in _find_changed(path, changes).items():
            return (
                f"no predicted Dice: it is calibrated for predict.{name}={_show(known)}, "
                f"not {_show(changes[name])}"
            )
    return None


def can_detect_ood(
    paths: Sequence[Path], *, ensemble: Ensemble, changes: Mapping[str, Any]
) -> bool:
    """Return whether images that are out of distribution can be detected.

    The detector measures the image and the deepest level of the network. Both depend on how windows
    are cut (`predict.mode`), but not on how their results are combined.

    Raises:
        ModelFileError: If there is no such model.
    """
    from segnetr.outputs.models.quality_file import has_quality

    return ensemble != "soup" and all(
        has_quality(path) and "mode" not in _find_changed(path, changes)
        for path in expand_folds(paths)
    )


def _find_changed(path: Path, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the model's own values of settings that change masks and were changed."""
    own: PredictConfig = read_card(path).predict
    return {
        name: getattr(own, name)
        for name in _MASK_SETTINGS
        if name in changes and _as_tuple(changes[name]) != getattr(own, name)
    }


def add_quality_models(
    predictor: Predictor, paths: Sequence[Path], *, ood_only: bool = False
) -> Predictor:
    """Return a predictor that estimates quality with the models stored next to the weights.

    Args:
        predictor: Makes the masks.
        paths: The models.
        ood_only: Only detect images that are out of distribution.

    Raises:
        ModelFileError: If a quality file is truncated, changed or unrelated.
    """
    # Only models with quality files pay for these imports.
    from segnetr.engine.quality.predictor import QualityPredictor
    from segnetr.outputs.models.quality_file import read_quality

    models = [read_quality(path) for path in expand_folds(paths)]
    return QualityPredictor(predictor, models, ood_only=ood_only)


def out_of_fold_quality(predictor: Predictor, case: Case, prediction: Prediction) -> Quality | None:
    """Return the quality of a mask of the training dataset.

    Calibration cases get the prediction of the regression that was fitted without them.
    """
    from segnetr.engine.quality.predictor import QualityPredictor

    quality = prediction.quality
    if quality is None or not isinstance(predictor, QualityPredictor):
        return quality
    if len(predictor.quality_models) != 1:
        return quality
    return predictor.quality_models[0].out_of_fold(case.case_id, quality)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _show(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
