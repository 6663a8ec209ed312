"""The folder of a cross-validation: a run for each fold, and the results over all folds."""

import json
from pathlib import Path

from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ModelFileError, UsageError
from segnetr.storage.manifest import write_json

_FORMAT = "segnetr-folds-1"
_INDEX = "cross_validation.json"


class FoldDir:
    """Paths in the folder of a cross-validation.

    Attributes:
        path: The folder.
        run: Files of the whole: configuration, split, provenance, scores on the test split, report.
        index: JSON file with the number of folds.
        out_of_fold: Scores of each case by the network that was not trained on it.
        masks: The masks of these predictions.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RunDir(path)
        self.index = path / _INDEX
        self.out_of_fold = path / "out_of_fold"
        self.masks = self.out_of_fold / "masks"

    def open(self, folds: int) -> None:
        """Create the folder, or check that an existing one has this number of folds.

        Raises:
            UsageError: If it contains another cross-validation, or a run without folds.
            WriteError: If it cannot be written.
        """
        if self.run.has_checkpoint():
            raise UsageError(f"{self.path}: contains a run without folds; choose another --out")
        if self.index.is_file():
            if self.count() != folds:
                raise UsageError(
                    f"{self.path}: has {self.count()} folds, not {folds}; use "
                    f"--folds {self.count()} or another --out"
                )
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.index, {"format": _FORMAT, "folds": folds})

    def count(self) -> int:
        """Return the number of folds.

        Raises:
            ModelFileError: If the index cannot be read.
        """
        try:
            content = json.loads(self.index.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or not 2 <= int(content["folds"]) <= 10_000:
                raise ValueError(content)
            return int(content["folds"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelFileError(f"{self.index}: not the index of a cross-validation") from error

    def fold(self, number: int) -> RunDir:
        """Return the run of one fold, 1 to `count()`."""
        return RunDir(self.path / f"fold-{number}")

    def is_done(self, number: int) -> bool:
        """Whether a fold is trained and scored."""
        run = self.fold(number)
        return run.model.is_dir() and (run.evaluation / "summary.json").is_file()

    def missing(self) -> list[int]:
        """Return the folds that are not done."""
        return [number for number in range(1, self.count() + 1) if not self.is_done(number)]

    def models(self) -> list[Path]:
        """Return the run folders of all folds, for an ensemble.

        Raises:
            ModelFileError: If a fold is not done.
        """
        missing = self.missing()
        if missing:
            done = self.count() - len(missing)
            raise ModelFileError(
                f"{self.path}: {done} of {self.count()} folds are done; train the rest with "
                f"--fold all --resume, or use the folder of one fold, as {self.fold(1).path}"
            )
        return [self.fold(number).path for number in range(1, self.count() + 1)]


def is_cross_validation(path: Path) -> bool:
    """Return whether a folder is the folder of a cross-validation."""
    return (path / _INDEX).is_file()
