"""Which repairs of predicted labels help, found on validation cases and on nothing else.

Three kinds are tried one after the other: a threshold, the removal of pieces, the filling of holes.
Of each kind those help for sure whose bootstrap interval of the gain of Dice over what was chosen
before lies above 0, and of these the one with the largest mean gain is taken. The intervals are
widened by the number of trials of the kind (Bonferroni), for the best of several looks better than
it is.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.engine.inference.accumulator import Region
from segnetr.engine.inference.postprocessing import Labels, choose_labels, postprocess
from segnetr.metrics.mean_dice import find_mean_dice
from segnetr.metrics.paired import compare_paired

THRESHOLDS = (0.5, 0.3, 0.4, 0.6, 0.7)
FEWEST_PATIENTS = 6
"""With fewer an interval above 0 says little: five gains of chance are all positive in 3 %."""

_RESAMPLES = 4000
_LEVEL = 0.05
# Pieces below these shares of the median structure are tried as too small.
_SMALL_SHARES = (0.01, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """One way of coming from probabilities to labels.

    Attributes:
        threshold: As `predict.threshold`.
        pieces: "largest_component", "remove_small:N", or nothing.
        holes: "fill_holes", or nothing.
    """

    threshold: float = 0.5
    pieces: str = ""
    holes: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps as in `predict.post`."""
        return tuple(step for step in (self.pieces, self.holes) if step)


class ThresholdLabels:
    """Labels of one case for every threshold, chosen as its probabilities go by.

    One byte a pixel and threshold is kept, and not the probabilities.

    Args:
        grid: Of the file.
        classes: Number of classes K, background included.
    """

    def __init__(self, grid: tuple[int, ...], *, classes: int) -> None:
        self.labels = {value: np.zeros(grid, dtype=np.uint8) for value in THRESHOLDS}
        self._classes = classes
        self._held: list[NDArray[np.float32]] = []

    def __call__(self, region: Region, index: int, probability: NDArray[np.float32]) -> None:
        """Add a region of a class; a `segnetr.engine.inference.accumulator.ProbabilityCallback`."""
        self._held.append(probability)
        if index == self._classes - 1:
            stacked = np.stack(self._held)
            self._held.clear()
            for value, labels in self.labels.items():
                region.cut(labels)[...] = choose_labels(stacked, value)


class PostChooser:
    """Scores every way of repairing on every validation case, then chooses.

    Args:
        sizes: Pixels of each true structure among the validation cases.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        median = float(np.median(sizes)) if sizes else 0.0
        small = [f"remove_small:{round(share * median)}" for share in _SMALL_SHARES
                 if round(share * median) > 1]  # fmt: skip
        self._pieces = ("", "largest_component", *dict.fromkeys(small))
        self._dice: dict[Repair, dict[str, float]] = {}

    def add(
        self, case_id: str, labels: Mapping[float, Labels], ground_truth: Labels, *, classes: int
    ) -> None:
        """Score all repairs on one case.

        Args:
            case_id: The case.
            labels: Class indices by threshold, for each of `THRESHOLDS`.
            ground_truth: Class indices on the same grid.
            classes: Number of classes K, background included.
        """
        for threshold, pieces, holes in itertools.product(
            THRESHOLDS, self._pieces, ("", "fill_holes")
        ):
            repair = Repair(threshold=threshold, pieces=pieces, holes=holes)
            repaired = postprocess(labels[threshold], repair.steps)
            found = find_mean_dice(repaired, ground_truth, classes=classes)
            self._dice.setdefault(repair, {})[case_id] = found

    def choose(
        self, *, patients: Mapping[str, str], seed: int = 0
    ) -> tuple[Repair, tuple[PostprocessingTrial, ...]]:
        """Choose what helps for sure.

        Args:
            patients: Patient by case id; a case that is not named stands alone.
            seed: Seed of the resampling.

        Returns:
            The repair, which changes nothing where nothing helps, and all that was tried.
        """
        current = Repair()
        trials: list[PostprocessingTrial] = []
        for kind in ("threshold", "pieces", "holes"):
            options = self._vary(current, kind)
            tried = [
                self._try(current, option, name, patients=patients, seed=seed, looks=len(options))
                for name, option in options.items()
            ]
            sure = [index for index, trial in enumerate(tried) if (trial.low or 0.0) > 0]
            if sure:
                best = max(sure, key=lambda index: tried[index].gain)
                current = options[tried[best].step]
                tried[best] = replace(tried[best], taken=True)
            trials += tried
        return current, tuple(trials)

    def _vary(self, current: Repair, kind: str) -> dict[str, Repair]:
        """Give what is tried of one kind, by its name."""
        if kind == "threshold":
            return {
                f"threshold:{value:g}": replace(current, threshold=value)
                for value in THRESHOLDS[1:]
            }
        if kind == "pieces":
            return {name: replace(current, pieces=name) for name in self._pieces[1:]}
        return {"fill_holes": replace(current, holes="fill_holes")}

    def _try(
        self,
        current: Repair,
        option: Repair,
        name: str,
        *,
        patients: Mapping[str, str],
        seed: int,
        looks: int,
    ) -> PostprocessingTrial:
        before, after = self._dice[current], self._dice[option]
        found = compare_paired(
            before,
            after,
            patients=patients,
            bootstrap=_RESAMPLES,
            seed=seed,
            confidence=1 - _LEVEL / looks,
        )
        units = {(case in patients, patients.get(case, case)) for case in before}
        is_known = len(units) >= FEWEST_PATIENTS
        return PostprocessingTrial(
            step=name,
            gain=found.mean,
            low=found.low if is_known else None,
            high=found.high if is_known else None,
            cases=found.cases,
            taken=False,
        )
