"""`segnetr demo`: train, evaluate and predict on synthetic images, in minutes on two cores."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config
from segnetr.data.splits.split import read_split
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.prediction.predict import PredictOptions, PredictOutcome, predict
from segnetr.workflows.training.outcome import TrainOutcome
from segnetr.workflows.training.train import train

_NUM_PREDICTED = 6
_MARKER = ".segnetr-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """A run, and masks of images that were not used in training."""

    trained: TrainOutcome
    predicted: PredictOutcome

    def to_dict(self) -> Mapping[str, Any]:
        """Return both steps as plain data."""
        return {"train": self.trained.to_dict(), "predict": self.predicted.to_dict()}

    def __str__(self) -> str:
        """Return both steps as lines of text, the report last."""
        return f"{self.predicted}\n{self.trained}"


def demo(out: Path, *, assignments: Sequence[str] = (), progress: Progress) -> DemoOutcome:
    """Draw images, train a small SegNetr, score it, predict some images and write the report.

    Args:
        out: Folder of the demo, with the images in `data`, the run in `run`, and masks of test
            images in `predictions`. Run and predictions of an earlier demo are replaced.
        assignments: Settings that override the recipe `experiment/demo`.
        progress: Shows the progress.

    Raises:
        UsageError: If `out` contains other files.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise UsageError(f"--out {out}: contains other files; choose an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
    for folder in ("run", "predictions"):
        shutil.rmtree(out / folder, ignore_errors=True)
    config = load_config(
        ["experiment/demo"],
        flags={"data.data_dir": out / "data", "data.cache_dir": out / "cache"},
        assignments=assignments,
    )
    trained = train(config, out=out / "run", progress=progress)
    cases = {case.case_id: case for case in open_dataset(config.data).cases}
    held_out = read_split(RunDir(trained.run).splits).test[:_NUM_PREDICTED]
    predicted = predict(
        [cases[case_id].image for case_id in held_out],
        [trained.run],
        out / "predictions",
        PredictOptions(overlay=True),
        progress=progress,
    )
    return DemoOutcome(trained=trained, predicted=predicted)
