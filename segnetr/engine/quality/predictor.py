"""Wrap a predictor so that each prediction comes with an estimate of its quality."""

from collections.abc import Sequence
from dataclasses import replace

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.accumulator import ProbabilityCallback
from segnetr.engine.inference.predictor import Advance, FeatureHook, Prediction, Predictor
from segnetr.engine.quality.estimator import QualityModel, combine_quality
from segnetr.engine.quality.feature_collector import FeatureCollector, FeatureConfig


class QualityPredictor(Predictor):
    """Estimates the quality of each mask of a predictor during the same forward pass.

    Args:
        predictor: Makes the masks, which do not change.
        quality_models: One per network, in the order of the networks.

    Attributes:
        quality_models: As given.
    """

    collects_features = True

    def __init__(self, predictor: Predictor, quality_models: Sequence[QualityModel]) -> None:
        self._copy_settings(predictor)
        self.quality_models = tuple(quality_models)

    def predict(
        self,
        image: ImageFile | VolumeFile,
        *,
        keep_probabilities: bool = False,
        keep_uncertainty: bool = False,
        callback: ProbabilityCallback | None = None,
        advance: Advance | None = None,
        hooks: Sequence[FeatureHook] = (),
        temperatures: Sequence[float] = (),
    ) -> Prediction:
        """Segment a file and estimate the quality of the mask; see `Predictor.predict`."""
        if hooks:
            raise ValueError("a QualityPredictor uses hooks of its own")
        models = self.quality_models
        collectors = [
            FeatureCollector(
                FeatureConfig(
                    level=model.level,
                    temperature=model.temperature,
                    compare_views=model.needs_views,
                )
            )
            for model in models
        ]
        prediction = super().predict(
            image,
            keep_probabilities=keep_probabilities,
            keep_uncertainty=keep_uncertainty,
            callback=callback,
            advance=advance,
            hooks=collectors,
            temperatures=temperatures or [model.temperature for model in models],
        )
        estimates = [
            model.estimate(collector.result(image.kind, image.spacing))
            for model, collector in zip(models, collectors, strict=True)
        ]
        return replace(prediction, quality=combine_quality(estimates))
