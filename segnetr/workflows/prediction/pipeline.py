"""Read, predict and write one file after the other.

Unless memory is limited, the next file is read and the previous one is written while one file is
predicted. A signal stops the pipeline between two slices, so written files are complete.
"""

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from segnetr.data.readers.image_file import DicomSeries, ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.engine.inference.memory import MemoryLimit
from segnetr.engine.inference.predictor import Prediction, Predictor, flag_kind
from segnetr.engine.training.signals import SignalHandler
from segnetr.errors import ReadError
from segnetr.outputs.masks.output_paths import is_nifti_name
from segnetr.outputs.masks.writer import OutputPath, write_prediction
from segnetr.outputs.models.model_file import ModelCard
from segnetr.outputs.tables.predictions import describe_ood_flag, describe_quality
from segnetr.storage.manifest import hash_file
from segnetr.workflows.prediction.model_folder import InputFormat, open_model_input
from segnetr.workflows.prediction.options import PredictOptions
from segnetr.workflows.prediction.records import Record


class _StoppedError(Exception):
    """A signal requested a stop."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """An input as read, with its hash and the seconds this took."""

    image: ImageFile | VolumeFile
    sha256: str
    seconds: float


class PredictionPipeline:
    """Reads, predicts and writes files, in three threads unless memory is limited.

    Args:
        card: Card of the model.
        predictor: The networks.
        out: Output folder.
        options: What is written and how.
    """

    def __init__(
        self, card: ModelCard, predictor: Predictor, out: Path, options: PredictOptions
    ) -> None:
        self._spatial_dims = card.spatial_dims
        self._classes = card.classes
        self._input = InputFormat.of(card)
        self._predictor = predictor
        self._out = out
        self._options = options
        self._limit = None
        if options.max_memory is not None:
            self._limit = MemoryLimit(options.max_memory, predictor)

    def run(
        self, plan: Sequence[OutputPath], interrupts: SignalHandler
    ) -> Iterator[Record | ReadError]:
        """Yield the record of each input in order, or its error. A signal ends it early."""
        if self._limit is None:
            return self._run_overlapped(plan, interrupts)
        return self._run_sequentially(plan, interrupts)

    def _run_sequentially(
        self, plan: Sequence[OutputPath], interrupts: SignalHandler
    ) -> Iterator[Record | ReadError]:
        """Hold one file in memory at a time."""
        for item in plan:
            try:
                result: Record | ReadError = self._finish(item, interrupts)
            except ReadError as error:
                # The frames of the error would keep the file in memory while the next one is read.
                result = error.with_traceback(None)
            except _StoppedError:
                return
            yield result

    def _finish(self, item: OutputPath, interrupts: SignalHandler) -> Record:
        opened = self._open(item)
        prediction, seconds = self._predict(item, opened, interrupts)
        return self._write(item, opened, prediction, seconds)

    def _run_overlapped(
        self, plan: Sequence[OutputPath], interrupts: SignalHandler
    ) -> Iterator[Record | ReadError]:
        """Read the next file and write the previous one while one is predicted."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: Future[Record] | None = None
            for item, opening in self._open_ahead(plan, reader):
                result: Future[Record] | ReadError
                try:
                    opened = opening.result()
                    prediction, seconds = self._predict(item, opened, interrupts)
                except ReadError as error:
                    result = error
                except _StoppedError:
                    break
                else:
                    result = writer.submit(self._write, item, opened, prediction, seconds)
                if writing is not None:
                    yield _record_or_error(writing)
                writing = None
                if isinstance(result, ReadError):
                    yield result
                else:
                    writing = result
            if writing is not None:
                yield _record_or_error(writing)

    def _open_ahead(
        self, plan: Sequence[OutputPath], reader: ThreadPoolExecutor
    ) -> Iterator[tuple[OutputPath, "Future[_Opened]"]]:
        """Yield each input with the future of opening it. The next one has started by then."""
        ahead = [reader.submit(self._open, item) for item in plan[:1]]
        for item, following in itertools.zip_longest(plan, plan[1:]):
            current = ahead.pop()
            if following is not None:
                ahead.append(reader.submit(self._open, following))
            yield item, current

    def _open(self, item: OutputPath) -> _Opened:
        start = time.perf_counter()
        try:
            image = open_model_input(
                self._input,
                item.source,
                max_pixels=self._options.max_pixels,
                limit=self._limit,
                series=self._options.series,
            )
        except ReadError as error:
            if error.path == item.source:
                raise
            # For a DICOM slice, the input is its folder.
            raise ReadError(item.source, f"{error.path.name}: {error.reason}") from error
        digest = _hash_image(image)
        return _Opened(image=image, sha256=digest, seconds=time.perf_counter() - start)

    def _predict(
        self, item: OutputPath, opened: _Opened, interrupts: SignalHandler
    ) -> tuple[Prediction, float]:
        """Return the prediction and the seconds spent on the file so far."""

        def check(_done: int, _all: int) -> None:
            if interrupts.caught:
                raise _StoppedError

        check(0, 1)
        start = time.perf_counter()
        options = self._options
        if self._limit is not None:
            plan = self._limit.choose_batch_plan(
                opened.image,
                keep_probabilities=options.save_prob,
                keep_uncertainty=options.save_uncertainty,
                overlay=options.overlay,
                # Other formats are written from memory.
                spill=self._out if is_nifti_name(item.relative) else None,
            )
            self._predictor.set_batch_plan(plan)
        prediction = self._predictor.predict(
            opened.image,
            keep_probabilities=options.save_prob,
            keep_uncertainty=options.save_uncertainty,
            advance=check,
        )
        return prediction, opened.seconds + time.perf_counter() - start

    def _write(
        self, item: OutputPath, opened: _Opened, prediction: Prediction, seconds: float
    ) -> Record:
        start = time.perf_counter()
        written = write_prediction(
            prediction,
            opened.image,
            out=self._out,
            relative=item.relative,
            save_prob=self._options.save_prob,
            save_uncertainty=self._options.save_uncertainty,
            overlay=self._options.overlay,
            palette=self._options.format_name == "palette",
            classes=self._classes,
        )
        return {
            "input": str(item.source),
            "mask": str(item.relative),
            "files": [str(path.relative_to(self._out)) for path in written],
            "sha256": opened.sha256,
            "seconds": round(seconds + time.perf_counter() - start, 3),
            "warnings": list(opened.image.warnings),
            "quality": self._describe_quality(prediction, opened.image),
        }

    def _describe_quality(
        self, prediction: Prediction, image: ImageFile | VolumeFile
    ) -> Record | None:
        if prediction.quality is not None:
            return describe_quality(prediction.quality)
        flag = prediction.ood_flag or flag_kind(image.kind, spatial_dims=self._spatial_dims)
        return None if flag is None else describe_ood_flag(flag)


def _record_or_error(writing: "Future[Record]") -> Record | ReadError:
    """Return a record, or the error of a mask that its format cannot represent."""
    try:
        return writing.result()
    except ReadError as error:
        return error


def _hash_image(image: ImageFile | VolumeFile) -> str:
    """Return the hash of an image file, or of the lines of the hashes of a series' slices."""
    series = image.source_header if isinstance(image, ImageFile) else None
    if not (isinstance(series, DicomSeries) and image.path.is_dir()):
        return hash_file(image.path)
    lines = [hash_file(image.path / name) for name in series.names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
