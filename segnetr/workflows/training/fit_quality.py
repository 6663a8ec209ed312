"""Fit the quality model on the validation cases at the end of a training."""

import math
from collections.abc import Callable, Sequence

from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.engine.inference.predictor import Prediction, Predictor
from segnetr.engine.quality.embedding import find_deepest_level
from segnetr.engine.quality.estimator import QualityModel
from segnetr.engine.quality.feature_collector import (
    FeatureCollector,
    FeatureConfig,
    ImageFeatures,
)
from segnetr.engine.quality.fitting import MIN_CASES, KnownCase, TemperatureFit, fit_quality_model
from segnetr.engine.quality.rank_correlation import correlate_ranks
from segnetr.engine.training.run_dir import RunDir
from segnetr.metrics.mean_dice import find_mean_dice
from segnetr.outputs.models.model_file import ModelCard
from segnetr.outputs.models.quality_file import add_quality
from segnetr.progress import LogFile, Progress
from segnetr.workflows.prediction.model_folder import open_predictor, read_for

_MAX_CASES = 300
"""Larger sets of training or validation cases are subsampled evenly."""

_MAX_PROBABILITY_BYTES = 1 << 30
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
    """Fit predicted Dice and OOD limits, and store them next to the weights.

    If there are too few cases, one line says so and the model gets no quality model.

    Args:
        run: The run, whose model exists.
        config: Its configuration.
        spec: How masks are read.
        training: Cases that describe the training set.
        validation: Cases that everything else is fitted on.
        progress: Progress display.

    Raises:
        ReadError: If a case cannot be read.
        WriteError: If the model cannot be written. The previous one is then unchanged.
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
            line = "no predicted Dice: this network has no feature map for comparing images"
        else:
            fit = _Fit(config, spec, card, predictor, level, progress)
            quality = fit.run(_subsample(training), _subsample(validation))
            add_quality(run.model, quality)
            line = _describe(quality)
    progress.on_message(line)
    LogFile(run.log).on_message(line)


class _Fit:
    """Predicts the cases and fits the quality model."""

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
        """Predict the validation cases twice and the training cases once."""
        with self._progress.task("quality", len(training) + 2 * len(validation)) as advance:
            total = len(training) + 2 * len(validation)
            temperature = self._find_temperature(validation, lambda n: advance(n, total))
            settings = FeatureConfig(level=self._level, temperature=temperature)
            known = []
            for number, case in enumerate(validation, start=1):
                known.append(self._measure(case, settings))
                advance(len(validation) + number, total)
            features = []
            for number, case in enumerate(training, start=1):
                features.append(self._predict(case, settings)[1])
                advance(2 * len(validation) + number, total)
        return fit_quality_model(
            features,
            known,
            level=self._level,
            temperature=temperature,
            views=self._predictor.num_views,
            training_groups=[_group_of(case) for case in training],
        )

    def _find_temperature(self, cases: Sequence[Case], advance: _Advance) -> float:
        fit = TemperatureFit()
        for number, case in enumerate(cases, start=1):
            image = read_for(self._card, case.image, max_pixels=self._limit)
            ground_truth = read_case_ground_truth(case, self._spec, max_pixels=self._limit).array
            values = math.prod(image.grid) * len(self._card.classes)
            if 4 * values <= _MAX_PROBABILITY_BYTES and ground_truth.shape == image.grid:
                prediction = self._predictor.predict(image, keep_probabilities=True)
                if prediction.probabilities is not None:
                    fit.add(prediction.probabilities, ground_truth)
            advance(number)
        return fit.result()

    def _predict(self, case: Case, settings: FeatureConfig) -> tuple[Prediction, ImageFeatures]:
        image = read_for(self._card, case.image, max_pixels=self._limit)
        collector = FeatureCollector(settings)
        prediction = self._predictor.predict(image, hooks=[collector])
        return prediction, collector.result(image.kind, image.spacing)

    def _measure(self, case: Case, settings: FeatureConfig) -> KnownCase:
        ground_truth = read_case_ground_truth(case, self._spec, max_pixels=self._limit).array
        prediction, features = self._predict(case, settings)
        return KnownCase(
            case_id=case.case_id,
            group=_group_of(case),
            features=features,
            dice=find_mean_dice(prediction.labels, ground_truth, classes=len(self._card.classes)),
        )


def _group_of(case: Case) -> str:
    # A case without a patient must not be grouped with a patient of the same name.
    return f"case {case.case_id}" if case.patient_id is None else f"of {case.patient_id}"


def _subsample(cases: Sequence[Case]) -> Sequence[Case]:
    """Return every n-th case if there are more than `_MAX_CASES`."""
    return cases[:: -(-len(cases) // _MAX_CASES)]


def _explain_too_few(training: Sequence[Case], validation: Sequence[Case]) -> str | None:
    patients = {_group_of(case) for case in validation}
    for count, what in ((len(patients), "validation patients"), (len(training), "training cases")):
        if count < MIN_CASES:
            return f"no predicted Dice: {count} {what}, at least {MIN_CASES} are needed"
    return None


def _describe(quality: QualityModel) -> str:
    true = [case.dice for case in quality.cases]
    predicted = [case.predicted for case in quality.cases]
    correlation = correlate_ranks(predicted, true)
    found = "" if correlation is None else f", left-out Spearman {correlation:.2f}"
    return (
        f"predicted Dice calibrated on {len(true)} validation cases: temperature "
        f"{quality.temperature:.2f}, intervals of {quality.interval_level:.0%}{found}"
    )
