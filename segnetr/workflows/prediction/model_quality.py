"""Whether a model says how good its masks are, and why it does not where it does not."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import PredictConfig
from segnetr.data.case import Case
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.engine.quality.estimator import Quality
from segnetr.outputs.models.model_file import read_card
from segnetr.outputs.models.quality_file import has_quality, read_quality
from segnetr.workflows.prediction.ensemble import Ensemble, list_models

_ANSWERING = ("mode", "overlap", "weights", "tta", "threshold", "postprocessing")
"""Settings on which a mask depends, and with it how good it is."""


def wants_quality(paths: Sequence[Path], changes: Mapping[str, Any]) -> bool:
    """Tell whether masks are to be judged: the user says so, else the models."""
    if "quality" in changes:
        return bool(changes["quality"])
    return all(read_card(path).predict.quality for path in list_models(paths))


def find_obstacle(
    paths: Sequence[Path], *, ensemble: Ensemble, changes: Mapping[str, Any]
) -> str | None:
    """Say in one line why masks cannot be judged; None where they can.

    Args:
        paths: As the user named the models.
        ensemble: How several answer.
        changes: Settings put over the models' own `predict` section.

    Raises:
        ModelFileError: If there is no such model.
    """
    if ensemble == "soup":
        return (
            "no predicted Dice: a soup's mean of weights was never compared with the ground truth"
        )
    for path in list_models(paths):
        if not has_quality(path):
            return (
                f"no predicted Dice: {path} was trained without it (too few validation cases, "
                "predict.quality=false, or an earlier version)"
            )
        own: PredictConfig = read_card(path).predict
        for name in _ANSWERING:
            known = getattr(own, name)
            if name in changes and _as_tuple(changes[name]) != known:
                return (
                    f"no predicted Dice: it is calibrated for predict.{name}={_show(known)}, "
                    f"not {_show(changes[name])}"
                )
    return None


def attach_quality(predictor: Predictor, paths: Sequence[Path]) -> None:
    """Let a predictor judge its masks by what lies beside the weights of its networks.

    Raises:
        ModelFileError: If a file of it is torn, changed or foreign.
    """
    predictor.judge_by([read_quality(path) for path in list_models(paths)])


def load_cached_quality(predictor: Predictor, case: Case, prediction: Prediction) -> Quality | None:
    """Give what is believed about a mask of the data set that was trained on.

    Cases that the model was calibrated on are predicted by the fit without them.
    """
    if prediction.quality is None or len(predictor.judges) != 1:
        return prediction.quality
    return predictor.judges[0].recall(case.case_id, prediction.quality)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _show(value: Any) -> str:
    return ",".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)
