"""The folder of a run: its paths, and checkpoints that survive every interruption."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from segnetr.engine.training.checkpoint import (
    BestWeights,
    Checkpoint,
    read_best,
    read_run_checkpoint,
    write_best,
    write_checkpoint,
)
from segnetr.errors import ModelFileError, UsageError
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import build_aside, recover_folder, replace_folder


class RunDir:
    """Paths and checkpoints in the folder of a run.

    Attributes:
        path: The folder.
        config: The resolved configuration (YAML).
        splits: The split of the cases (JSON).
        content: Hashes of the cases (JSON).
        provenance: Versions, machine, command (JSON).
        metrics_jsonl: One line per step and validation.
        metrics_csv: The same as a table: step, phase, name, value.
        timings: Duration of the training (JSON).
        log: Messages with their times.
        tensorboard: Event files.
        checkpoints: The folders `last`, `previous` and `best`.
        model: The model folder, for prediction and export.
        evaluation: Scores on the test split.
        figures: Images.
        report: The HTML page.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.splits = self.path / "splits.json"
        self.content = self.path / "content.json"
        self.provenance = self.path / "provenance.json"
        self.metrics_jsonl = self.path / "metrics.jsonl"
        self.metrics_csv = self.path / "metrics.csv"
        self.timings = self.path / "timings.json"
        self.log = self.path / "log.txt"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last"
        self.previous = self.checkpoints / "previous"
        self.best = self.checkpoints / "best"
        self.model = self.path / "model"
        self.evaluation = self.path / "evaluation"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"

    def create(self, *, resume: bool = False) -> None:
        """Create the folder, or check that there is a run to resume.

        Raises:
            UsageError: If a new run finds checkpoints, or a resumed run finds none.
            WriteError: If the folder cannot be created or written to.
        """
        self.check(resume=resume)
        with as_write_error(self.path):
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            for folder in (self.last, self.previous, self.best):
                recover_folder(folder)
            probe = self.path / ".probe"
            probe.touch()
            probe.unlink()

    def check(self, *, resume: bool) -> None:
        """Check that the folder fits a new or a resumed run; nothing is written.

        Raises:
            UsageError: As `create`.
        """
        if resume and not self.has_checkpoint():
            raise UsageError(
                f"{self.path}: no checkpoint to resume; start without --resume or check --out"
            )
        if not resume and self.has_checkpoint():
            raise UsageError(
                f"{self.path}: already contains a run; continue it with --resume or choose another "
                "--out"
            )

    def has_checkpoint(self) -> bool:
        """Return whether the folder contains a checkpoint."""
        folders = (self.last, self.previous, self.checkpoints / ".previous.old")
        return any(folder.is_dir() for folder in folders)

    def save_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Write `last`, and rename the previous `last` to `previous`.

        There is a complete checkpoint at any time, even if the disk is full.

        Raises:
            WriteError: If it cannot be written; the older checkpoints are unchanged.
        """
        build = partial(write_checkpoint, checkpoint=checkpoint)
        with build_aside(build, self.last) as aside, as_write_error(self.last):
            old = self.checkpoints / ".previous.old"
            if self.last.exists():
                shutil.rmtree(old, ignore_errors=True)
                if self.previous.exists():
                    self.previous.rename(old)
                self.last.rename(self.previous)
                shutil.rmtree(old, ignore_errors=True)
            aside.rename(self.last)

    def load_checkpoint(self) -> tuple[Checkpoint, str | None]:
        """Read the newest undamaged checkpoint.

        Returns:
            The checkpoint, and a message for the user if it is not `last`.

        Raises:
            ModelFileError: If both `last` and `previous` are damaged.
        """
        try:
            return read_run_checkpoint(self.last), None
        except ModelFileError as error:
            damage = str(error)
        try:
            checkpoint = read_run_checkpoint(self.previous)
        except ModelFileError as error:
            raise ModelFileError(f"no undamaged checkpoint: {damage}; {error}") from error
        return (
            checkpoint,
            f"{damage}; continuing from {self.previous}, step {checkpoint.state.step}",
        )

    def set_aside(self, folder: Path) -> None:
        """Rename a damaged checkpoint, so that it never becomes `previous`.

        Args:
            folder: `last` or `best`; it becomes `damaged_last` or `damaged_best`.

        Raises:
            WriteError: If it cannot be moved.
        """
        damaged = self.checkpoints / f"damaged_{folder.name}"
        with as_write_error(damaged):
            shutil.rmtree(damaged, ignore_errors=True)
            if folder.exists():
                folder.rename(damaged)

    def save_best(self, best: BestWeights) -> None:
        """Replace the weights with the best score.

        Raises:
            WriteError: If they cannot be written; the older weights are unchanged.
        """
        replace_folder(partial(write_best, best=best), self.best)

    def load_best(self) -> BestWeights:
        """Read the weights with the best score.

        Raises:
            ModelFileError: If they are missing, truncated or modified.
        """
        return read_best(self.best)

    def load_final_weights(self, *, keep: Literal["best", "last"]) -> Mapping[str, Tensor]:
        """Read the final weights of a finished training.

        Args:
            keep: "best": the weights with the best validation score, if there is one. "last": the
                weights of the last step, averaged if the training averages weights.

        Raises:
            ModelFileError: If they are missing, truncated or modified.
        """
        if keep == "best" and self.best.is_dir():
            return self.load_best().weights
        checkpoint, _ = self.load_checkpoint()
        return checkpoint.weights if checkpoint.average is None else checkpoint.average
