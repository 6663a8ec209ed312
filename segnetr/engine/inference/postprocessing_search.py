"""Search for the postprocessing that improves Dice on the validation cases.

Three kinds are tried in turn: a threshold, the removal of components, and the filling of holes. A
step of a kind counts as an improvement if the bootstrap interval of its gain in Dice over the
previous choice is above 0. Among these, the step with the largest mean gain is selected. The
intervals are widened by the number of trials of the kind (Bonferroni), because the best of several
trials looks better than it is.
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
MIN_PATIENTS = 6
"""With fewer, an interval above 0 means little: five random gains are all positive in 3 %."""

_RESAMPLES = 4000
_LEVEL = 0.05
# Components below these shares of the median structure are candidates for removal.
_SMALL_SHARES = (0.01, 0.1)


@dataclass(frozen=True, slots=True, kw_only=True)
class PostprocessingOption:
    """A way to turn probabilities into labels.

    Attributes:
        threshold: As `predict.threshold`.
        components: "largest_component", "remove_small:N", or empty.
        holes: "fill_holes", or empty.
    """

    threshold: float = 0.5
    components: str = ""
    holes: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps as in `predict.postprocessing`."""
        return tuple(step for step in (self.components, self.holes) if step)


class ThresholdLabels:
    """Labels of one case for every threshold, computed as its probabilities arrive.

    Keeps one byte per pixel and threshold instead of the probabilities.

    Args:
        grid: Shape of the file.
        classes: Number of classes K, background included.
    """

    def __init__(self, grid: tuple[int, ...], *, classes: int) -> None:
        self.labels = {value: np.zeros(grid, dtype=np.uint8) for value in THRESHOLDS}
        self._classes = classes
        self._pending: list[NDArray[np.float32]] = []

    def __call__(self, region: Region, index: int, probability: NDArray[np.float32]) -> None:
        """Add a region of a class; a `segnetr.engine.inference.accumulator.ProbabilityCallback`."""
        self._pending.append(probability)
        if index == self._classes - 1:
            stacked = np.stack(self._pending)
            self._pending.clear()
            for value, labels in self.labels.items():
                region.cut(labels)[...] = choose_labels(stacked, value)


class PostprocessingSearch:
    """Scores every option on every validation case, then selects the best.

    Args:
        sizes: Pixels of each true structure among the validation cases.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        median = float(np.median(sizes)) if sizes else 0.0
        small = [f"remove_small:{round(share * median)}" for share in _SMALL_SHARES
                 if round(share * median) > 1]  # fmt: skip
        self._components = ("", "largest_component", *dict.fromkeys(small))
        self._dice: dict[PostprocessingOption, dict[str, float]] = {}

    def add(
        self, case_id: str, labels: Mapping[float, Labels], ground_truth: Labels, *, classes: int
    ) -> None:
        """Score all options on one case.

        Args:
            case_id: Id of the case.
            labels: Class indices by threshold, for each of `THRESHOLDS`.
            ground_truth: Class indices on the same grid.
            classes: Number of classes K, background included.
        """
        for threshold, components, holes in itertools.product(
            THRESHOLDS, self._components, ("", "fill_holes")
        ):
            option = PostprocessingOption(threshold=threshold, components=components, holes=holes)
            processed = postprocess(labels[threshold], option.steps)
            found = find_mean_dice(processed, ground_truth, classes=classes)
            self._dice.setdefault(option, {})[case_id] = found

    def choose(
        self, *, patients: Mapping[str, str], seed: int = 0
    ) -> tuple[PostprocessingOption, tuple[PostprocessingTrial, ...]]:
        """Select the steps that improve Dice significantly.

        Args:
            patients: Patient by case id. A case that is not listed is its own patient.
            seed: Seed of the resampling.

        Returns:
            The selected option, which changes nothing if nothing helps, and all trials.
        """
        current = PostprocessingOption()
        trials: list[PostprocessingTrial] = []
        for kind in ("threshold", "components", "holes"):
            options = self._vary(current, kind)
            tried = [
                self._try(current, option, name, patients=patients, seed=seed, count=len(options))
                for name, option in options.items()
            ]
            significant = [index for index, trial in enumerate(tried) if (trial.low or 0.0) > 0]
            if significant:
                best = max(significant, key=lambda index: tried[index].gain)
                current = options[tried[best].step]
                tried[best] = replace(tried[best], taken=True)
            trials += tried
        return current, tuple(trials)

    def _vary(self, current: PostprocessingOption, kind: str) -> dict[str, PostprocessingOption]:
        """Return the options of one kind by name."""
        if kind == "threshold":
            return {
                f"threshold:{value:g}": replace(current, threshold=value)
                for value in THRESHOLDS[1:]
            }
        if kind == "components":
            return {name: replace(current, components=name) for name in self._components[1:]}
        return {"fill_holes": replace(current, holes="fill_holes")}

    def _try(
        self,
        current: PostprocessingOption,
        option: PostprocessingOption,
        name: str,
        *,
        patients: Mapping[str, str],
        seed: int,
        count: int,
    ) -> PostprocessingTrial:
        before, after = self._dice[current], self._dice[option]
        found = compare_paired(
            before,
            after,
            patients=patients,
            bootstrap=_RESAMPLES,
            seed=seed,
            confidence=1 - _LEVEL / count,
        )
        units = {(case in patients, patients.get(case, case)) for case in before}
        is_known = len(units) >= MIN_PATIENTS
        return PostprocessingTrial(
            step=name,
            gain=found.mean,
            low=found.low if is_known else None,
            high=found.high if is_known else None,
            cases=found.cases,
            taken=False,
        )
