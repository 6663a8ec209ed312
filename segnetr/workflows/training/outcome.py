"""The outcome of a training, for all tasks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.engine.training.signals import STOP_SIGNALS
from segnetr.engine.training.trainer import TrainResult
from segnetr.workflows.outcome import Outcome

STOPPED_BY_SIGNAL = frozenset(STOP_SIGNALS)
"""Stop reasons after which a training can be resumed, and is not scored yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome:
    """A training that ended or was interrupted.

    Attributes:
        run: The run folder.
        result: Steps, best validation score, stop reason.
        evaluation: Scores on the test split; None after an interruption.
        report: The HTML page; None after an interruption.
    """

    run: Path
    result: TrainResult
    evaluation: Outcome | None
    report: Path | None

    @property
    def stopped(self) -> str:
        """Why the training ended."""
        return self.result.stopped

    def to_dict(self) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        return {
            "run": str(self.run),
            "steps": self.result.steps,
            "best_score": self.result.best_score,
            "best_step": self.result.best_step,
            "seconds": round(self.result.seconds, 1),
            "stopped": self.result.stopped,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "report": None if self.report is None else str(self.report),
        }

    def __str__(self) -> str:
        """Return the outcome as lines of text."""
        result = self.result
        lines = [
            f"run:    {self.run}",
            f"steps:  {result.steps} in {result.seconds / 60:.1f} min ({result.stopped})",
        ]
        if result.best_score is not None:
            lines.append(f"best:   {result.best_score:.4f} in validation, step {result.best_step}")
        if self.report is None:
            return "\n".join([*lines, "to continue: run the same command with --resume"])
        if self.evaluation is not None:
            lines.append(str(self.evaluation))
        return "\n".join([*lines, f"report: {self.report}"])
