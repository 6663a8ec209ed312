"""Wrap a predictor so that each prediction comes with an estimate of its quality."""

from collections.abc import Sequence
from dataclasses import replace

from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.accumulator import ProbabilityCallback
from segnetr.engine.inference.predictor import Advance, FeatureHook, Prediction, Predictor
from segnetr.engine.quality.estimator import QualityModel, combine_flags, combine_quality
from segnetr.engine.quality.feature_collector import FeatureCollector, FeatureConfig


class QualityPredictor(Predictor):
    """Estimates the quality of each mask of a predictor during the same forward pass.

    Args:
        predictor: Makes the masks, which do not change.
        quality_models: One per network, in the order of the networks.
        ood_only: Only detect images that are out of distribution, because the settings are not
            those that the predicted Dice was calibrated for.

    Attributes:
        quality_models: As given.
        ood_only: As given.
    """

    collects_features = True

    def __init__(
        self,
        predictor: Predictor,
        quality_models: Sequence[QualityModel],
        *,
        ood_only: bool = False,
    ) -> None:
        self._copy_settings(predictor)
        self.quality_models = tuple(quality_models)
        self.ood_only = ood_only

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
                    compare_views=model.needs_views and not self.ood_only,
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
            temperatures=temperatures or self._temperatures(),
        )
        features = [collector.result(image.kind, image.spacing) for collector in collectors]
        if self.ood_only:
            flags = [model.detect(one) for model, one in zip(models, features, strict=True)]
            return replace(prediction, ood_flag=combine_flags(flags))
        estimates = [model.estimate(one) for model, one in zip(models, features, strict=True)]
        return replace(prediction, quality=combine_quality(estimates))

    def _temperatures(self) -> list[float]:
        """Return the temperatures that were fitted for these settings."""
        return [] if self.ood_only else [model.temperature for model in self.quality_models]
