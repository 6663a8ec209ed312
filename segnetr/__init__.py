"""SegNetr: medical image segmentation from one command, with scores one can trust.

From Python: `segnetr.load("runs/first").predict("photo.jpg").labels`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from segnetr.workflows.prediction.loaded_model import LoadedModel

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: "Path | str", *, device: str = "auto", **settings: Any) -> "LoadedModel":
    """Load a trained segmentation model once, for any number of predictions.

    Imports torch only when it is called.

    Args:
        path: A run, the model folder in it, or the folder of a cross-validation, whose networks
            answer together.
        device: "auto", "cpu", "cuda", "cuda:1".
        settings: Put over the model's own `predict` section, as `tta="flips"`.

    Returns:
        A model whose `predict(file_or_array, spacing=...)` gives the labels that the command
        `segnetr predict` writes.

    Raises:
        ModelFileError: If the model is missing, torn, changed or foreign.
        UsageError: If a setting does not fit, there is no such device, or it is a classifier.
    """
    from segnetr.workflows.prediction import loaded_model

    return loaded_model.load(path, device=device, **settings)
