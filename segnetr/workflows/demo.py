"""`segnetr demo`: the whole job on drawn images, in a few minutes on two cores."""

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

_PREDICTED = 6
_MARK = ".segnetr-demo"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """What the demo made: a run, and masks of images the run was not trained on."""

    trained: TrainOutcome
    predicted: PredictOutcome

    def to_dict(self) -> Mapping[str, Any]:
        """Give both steps as plain data."""
        return {"train": self.trained.to_dict(), "predict": self.predicted.to_dict()}

    def __str__(self) -> str:
        """Give both steps as lines for people, the report last."""
        return f"{self.predicted}\n{self.trained}"


def demo(out: Path, *, assignments: Sequence[str] = (), progress: Progress) -> DemoOutcome:
    """Draw images, train a small SegNetr on them, score it, predict some, write the report.

    Args:
        out: Folder of the demo: `data` holds the images, `run` the run, `predictions` masks of
            test images. What an earlier demo made there is made again, but for the images.
        assignments: Settings put over the recipe `experiment/demo`.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If `out` holds something that no demo made.
    """
    if out.exists() and any(out.iterdir()) and not (out / _MARK).is_file():
        raise UsageError(f"--out {out}: holds other files; choose an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARK).touch()
    for folder in ("run", "predictions"):
        shutil.rmtree(out / folder, ignore_errors=True)
    config = load_config(
        ["experiment/demo"],
        flags={"data.data_dir": out / "data", "data.cache_dir": out / "cache"},
        assignments=assignments,
    )
    trained = train(config, out=out / "run", progress=progress)
    cases = {case.case_id: case for case in open_dataset(config.data).cases}
    held_out = read_split(RunDir(trained.run).splits).test[:_PREDICTED]
    predicted = predict(
        [cases[case_id].image for case_id in held_out],
        [trained.run],
        out / "predictions",
        PredictOptions(overlay=True),
        progress=progress,
    )
    return DemoOutcome(trained=trained, predicted=predicted)
