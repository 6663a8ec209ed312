"""`segnetr demo`: the whole job on drawn pictures, in a few minutes on two cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config
from segnetr.engine.progress import Progress
from segnetr.workflows.dataset import open_dataset
from segnetr.workflows.predict import PredictOptions, PredictOutcome, predict
from segnetr.workflows.train import TrainOutcome, train

_PREDICTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """What the demo made."""

    trained: TrainOutcome
    predicted: PredictOutcome

    def facts(self) -> Mapping[str, Any]:
        """Give both steps as plain data."""
        return {"train": self.trained.facts(), "predict": self.predicted.facts()}

    def text(self) -> str:
        """Give both steps as lines for people."""
        return f"{self.trained.text()}\n{self.predicted.text()}"


def demo(out: Path, *, assignments: Sequence[str] = (), progress: Progress) -> DemoOutcome:
    """Draw pictures, train a small SegNetr on them, score it, predict some, write the report.

    Args:
        out: Folder of the demo; `out/run` holds the run, `out/predictions` the masks. A demo that
            lies there already is made again.
        assignments: Settings put over the recipe `experiment/demo`.
        progress: What the user sees meanwhile.
    """
