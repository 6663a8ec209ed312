"""A trained model in Python: `segnetr.load(path).predict(...)`, as `segnetr predict`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image import fit_channels
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.predictor import Prediction, Predictor, flag_kind
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.models.classifier_file import is_classifier
from segnetr.outputs.models.model_file import ModelCard
from segnetr.workflows.prediction.model_folder import open_model_input, open_predictor

_FROM_ARRAY = Path("array")


class LoadedModel:
    """A segmentation model, loaded once, for any number of files and arrays.

    Args:
        card: Card of the model.
        predictor: The networks.

    Attributes:
        card: Classes, training data, licenses, scores, settings.
    """

    def __init__(self, card: ModelCard, predictor: Predictor) -> None:
        self.card = card
        self._predictor = predictor

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, background first; label i is class i."""
        return self.card.classes

    def predict(
        self,
        image: Path | str | NDArray[Any],
        *,
        spacing: Sequence[float] | None = None,
        probabilities: bool = False,
        series: str | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> Prediction:
        """Segment a file or an array. The labels are those that `segnetr predict` writes.

        Args:
            image: A file that `segnetr predict` reads, or an array: an image (H, W) or (H, W, C)
                with rows from the top, for a model of images; or a volume (X, Y, Z) or (X, Y, Z, C)
                for a model of volumes or with three numbers of `spacing`. An image is uint8 or
                uint16 as in files, or floating point from 0 to 1.
            spacing: For an array: pixel size along each axis in mm. Needed for a volume if the
                model resamples its slices. A file has its own.
            probabilities: Return the probabilities as well.
            series: For a folder with several DICOM series: the SeriesInstanceUID of one.
            max_pixels: A larger file is rejected before it is decoded. NIfTI volumes are read slice
                by slice; only labels of 2 GiB and more are rejected.

        Returns:
            Labels, and probabilities if requested, on the grid of `image`.

        Raises:
            ReadError: If the file is unreadable or invalid, or the array does not fit the model.
            UsageError: If `spacing` is given for a file, or does not fit the array.
        """
        read: ImageFile | VolumeFile
        if isinstance(image, np.ndarray):
            read = self._wrap(image, spacing)
        elif spacing is not None:
            raise UsageError(f"spacing {tuple(spacing)}: {image} is a file and has its own")
        else:
            read = open_model_input(self.card, Path(image), max_pixels=max_pixels, series=series)
        prediction = self._predictor.predict(read, keep_probabilities=probabilities)
        if prediction.quality is None and prediction.ood_flag is None:
            return replace(
                prediction, ood_flag=flag_kind(read.kind, spatial_dims=self.card.spatial_dims)
            )
        return prediction

    def _wrap(self, array: NDArray[Any], spacing: Sequence[float] | None) -> ImageFile:
        """Wrap an array as if it had been read from a file."""
        _check_values(array)
        is_volume = self.card.spatial_dims == 3 or (spacing is not None and len(spacing) == 3)
        axes = 3 if is_volume else 2
        if array.ndim not in (axes, axes + 1) or array.size == 0:
            wanted = "(X, Y, Z) or (X, Y, Z, C)" if is_volume else "(H, W) or (H, W, C)"
            raise ReadError(_FROM_ARRAY, f"its shape is {array.shape} where {wanted} is expected")
        sides = None if spacing is None else _check_spacing(spacing, axes=axes)
        if is_volume:
            return self._wrap_volume(array, sides)
        image = array[..., None] if array.ndim == 2 else array
        _check_image(image, self.card)
        image = fit_channels(_FROM_ARRAY, image, channels=self.card.file_channels)
        return ImageFile(path=_FROM_ARRAY, array=image, kind="image")

    def _wrap_volume(self, array: NDArray[Any], sides: tuple[float, ...] | None) -> ImageFile:
        channels = array.shape[3] if array.ndim == 4 else 1
        if channels != self.card.volume_channels:
            raise ReadError(
                _FROM_ARRAY,
                f"it has {channels} values per voxel; {self.card.volume_channels} are expected",
            )
        if sides is None and self.card.slices.spacing_mm is not None:
            raise UsageError(
                "this model resamples slices to one pixel size: give spacing=(x, y, z) in mm"
            )
        known = sides or (1.0, 1.0, 1.0)
        return ImageFile(
            path=_FROM_ARRAY,
            array=array[..., 0] if array.ndim == 4 and channels == 1 else array,
            kind="volume",
            affine=np.diag([*known, 1.0]),
            spacing=known,
        )


def load(path: Path | str, *, device: str = "auto", **settings: Any) -> LoadedModel:
    """Load a model; see `segnetr.load`."""
    if is_classifier(Path(path)):
        raise UsageError(f"{path}: a classifier; segnetr.load is for segmentation models")
    return LoadedModel(*open_predictor(Path(path), changes=settings, device=device))


def _check_spacing(spacing: Sequence[float], *, axes: int) -> tuple[float, ...]:
    """Return the spacing as floats; raise UsageError if it is not valid for the axes."""
    sides = tuple(float(side) for side in spacing)
    if len(sides) != axes or not all(np.isfinite(side) and side > 0 for side in sides):
        raise UsageError(f"spacing {sides}: pass {axes} numbers above 0, in mm")
    return sides


def _check_values(array: NDArray[Any]) -> None:
    if array.dtype.kind not in "uif":
        raise ReadError(_FROM_ARRAY, f"its type is {array.dtype}; numbers are expected")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ReadError(_FROM_ARRAY, "it contains NaN or infinite values")


def _check_image(image: NDArray[Any], card: ModelCard) -> None:
    """Reject values that would be scaled wrongly.

    Integers are scaled by the range of their type: 0 to 255 in int64 would all be middle gray.
    """
    kind = image.dtype.kind
    if kind == "i":
        raise ReadError(
            _FROM_ARRAY, f"its type is {image.dtype}; give uint8 or uint16, or floats from 0 to 1"
        )
    if kind != "f":
        return
    if card.intensity.kind != "per_image" and (image.min() < 0 or image.max() > 1):
        raise ReadError(
            _FROM_ARRAY,
            f"its values go from {image.min():.4g} to {image.max():.4g}; floats go from 0 to 1",
        )
    if image.shape[2] == 3 and card.file_channels == 1:
        raise ReadError(_FROM_ARRAY, "it has colors where the model expects gray; pass gray values")
