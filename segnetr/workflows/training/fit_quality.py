"""The end of a training: what says later how good a mask is, from the validation cases."""

import math
from collections.abc import Callable, Sequence

from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.engine.inference.predictor import FeatureHook, Predictor
from segnetr.engine.quality.embedding import find_deepest_level
from segnetr.engine.quality.estimator import QualityModel
from segnetr.engine.quality.feature_collector import ImageFeatures
from segnetr.engine.quality.fitting import FEWEST, KnownCase, TemperatureFit, fit_quality_model
from segnetr.engine.quality.rank_correlation import correlate_ranks
from segnetr.engine.training.run_dir import RunDir
from segnetr.metrics.mean_dice import find_mean_dice
from segnetr.outputs.models.model_file import ModelCard
from segnetr.outputs.models.quality_file import add_quality
from segnetr.progress import LogFile, Progress
from segnetr.workflows.prediction.model_folder import open_predictor, read_for

_MOST_CASES = 300
"""Of more training or validation cases an even choice is looked at."""

_MOST_PROBABILITY_BYTES = 1 << 30
_Advance = Callable[[int], None]


def fit_quality(
    run: RunDir,
    config: RunConfig,
    *,
    spec: DatasetSpec,
    training: Sequence[Case],
    validation: Sequence[Case],
    progress: Progress,
) -> None:
    """Fit predicted Dice and limits of familiarity, and put them beside the weights.

    Where the cases are too few, one line says so and the model stays without.

    Args:
        run: The run, whose model is written.
        config: Its configuration.
        spec: How masks are read.
        training: What images of the training set are like is taken from these.
        validation: All else is taken from these.
        progress: What the user sees meanwhile.

    Raises:
        ReadError: If a case cannot be read.
        WriteError: If the model cannot be written again; the former one is then untouched.
    """
    if not config.predict.quality:
        return
    line = _explain_too_few(training, validation)
    if line is None:
        card, predictor = open_predictor(
            run.path, changes={"quality": False}, device=config.train.device
        )
        network = predictor.networks[0]
        level = find_deepest_level(
            network.model, channels=network.channels, image_size=network.image_size
        )
        if level is None:
            line = "no predicted Dice: this network has no feature map to compare images by"
        else:
            fit = _Fit(config, spec, card, predictor, level, progress)
            quality = fit.run(_choose(training), _choose(validation))
            add_quality(run.model, quality)
            line = _describe(quality)
    progress.on_message(line)
    LogFile(run.log).on_message(line)


class _Fit:
    """Shows a network the cases, and fits."""

    def __init__(
        self,
        config: RunConfig,
        spec: DatasetSpec,
        card: ModelCard,
        predictor: Predictor,
        level: str,
        progress: Progress,
    ) -> None:
        self._limit = config.data.max_pixels
        self._spec = spec
        self._card = card
        self._predictor = predictor
        self._level = level
        self._progress = progress

    def run(self, training: Sequence[Case], validation: Sequence[Case]) -> QualityModel:
        """Look at the validation cases, twice, and once at the training cases."""
        with self._progress.task("quality", len(training) + 2 * len(validation)) as advance:
            total = len(training) + 2 * len(validation)
            temperature = self._find_temperature(validation, lambda n: advance(n, total))
            self._predictor.observe(FeatureHook(level=self._level, temperature=temperature))
            known = []
            for number, case in enumerate(validation, start=1):
                known.append(self._know(case))
                advance(len(validation) + number, total)
            seen = []
            for number, case in enumerate(training, start=1):
                image = read_for(self._card, case.image, max_pixels=self._limit)
                seen.append(_only(self._predictor.predict(image).observations))
                advance(2 * len(validation) + number, total)
        return fit_quality_model(
            seen,
            known,
            level=self._level,
            temperature=temperature,
            views=self._predictor.views,
            training_groups=[_name_group(case) for case in training],
        )

    def _find_temperature(self, cases: Sequence[Case], advance: _Advance) -> float:
        fit = TemperatureFit()
        for number, case in enumerate(cases, start=1):
            image = read_for(self._card, case.image, max_pixels=self._limit)
            ground_truth = read_case_ground_truth(case, self._spec, max_pixels=self._limit).array
            values = math.prod(image.grid) * len(self._card.classes)
            if 4 * values <= _MOST_PROBABILITY_BYTES and ground_truth.shape == image.grid:
                answer = self._predictor.predict(image, keep_probabilities=True).probabilities
                if answer is not None:
                    fit.add(answer, ground_truth)
            advance(number)
        return fit.finish()

    def _know(self, case: Case) -> KnownCase:
        image = read_for(self._card, case.image, max_pixels=self._limit)
        ground_truth = read_case_ground_truth(case, self._spec, max_pixels=self._limit).array
        prediction = self._predictor.predict(image)
        return KnownCase(
            case_id=case.case_id,
            group=_name_group(case),
            seen=_only(prediction.observations),
            dice=find_mean_dice(prediction.labels, ground_truth, classes=len(self._card.classes)),
        )


def _name_group(case: Case) -> str:
    # As everywhere, a case that stands alone does not fall together with a patient of its name.
    return f"case {case.case_id}" if case.patient_id is None else f"of {case.patient_id}"


def _only(observations: tuple[ImageFeatures, ...]) -> ImageFeatures:
    (seen,) = observations
    return seen


def _choose(cases: Sequence[Case]) -> Sequence[Case]:
    """Take every n-th case where there are more than are looked at."""
    return cases[:: -(-len(cases) // _MOST_CASES)]


def _explain_too_few(training: Sequence[Case], validation: Sequence[Case]) -> str | None:
    patients = {_name_group(case) for case in validation}
    for count, what in ((len(patients), "validation patients"), (len(training), "training cases")):
        if count < FEWEST:
            return f"no predicted Dice: {count} {what}, {FEWEST} are needed"
    return None


def _describe(quality: QualityModel) -> str:
    true = [case.dice for case in quality.cases]
    said = [case.predicted for case in quality.cases]
    order = correlate_ranks(said, true)
    found = "" if order is None else f", Spearman {order:.2f} left-out"
    return (
        f"predicted Dice calibrated on {len(true)} validation cases: temperature "
        f"{quality.temperature:.2f}, intervals of {quality.interval_level:.0%}{found}"
    )
