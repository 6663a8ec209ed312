"""`segnetr predict`: masks for files and folders, one bad file at a time.

While one file goes through the network the next one is read and the one before is written, unless
memory is limited. A signal ends it between two slices: what is written is whole, and so is the
index.
"""

import itertools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segnetr.config.shards import Shard, find_shard
from segnetr.data.files.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.files.volume_file import VolumeFile
from segnetr.data.readers import ImageFile, list_images
from segnetr.engine.interrupts import Interrupts, StopSignal
from segnetr.engine.memory import MemoryLimit
from segnetr.engine.predictor import Prediction, Predictor
from segnetr.engine.progress import Progress
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.mask_format import check_format
from segnetr.outputs.masks import PlannedOutput, plan_outputs, write_prediction
from segnetr.outputs.model_file import ModelCard
from segnetr.outputs.plan import has_results
from segnetr.outputs.predictions_table import describe_quality
from segnetr.workflows.ensemble import Ensemble
from segnetr.workflows.model_folder import open_image, open_predictors
from segnetr.workflows.model_quality import find_obstacle, wants_quality
from segnetr.workflows.predict_index import (
    INDEX_NAME,
    PredictIndex,
    Record,
    describe_model,
    hash_image,
)

__all__ = ["INDEX_NAME", "PredictOptions", "PredictOutcome", "predict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What a prediction writes, and how.

    Attributes:
        changes: Settings put over the model's own `predict` section.
        ensemble: How several models answer: "mean" of their probabilities, "vote" for each pixel,
            or "soup", the mean of their weights.
        overlay: Write pictures with contours as well.
        save_prob: Write probabilities as well.
        save_uncertainty: Write maps of entropy, and of variance over views and networks.
        explain: With a classifier: write what its answers rest on as well.
        format_name: Format of the masks, one of `segnetr.outputs.mask_format.MASK_FORMATS`.
        series: SeriesInstanceUID of the DICOM series to take, where a folder holds several.
        skip_existing: Leave inputs alone whose results are there.
        shard: The part of the inputs to work on; None: that of the rank under torchrun, else all.
        max_memory: Most bytes of main memory that may be resident; None: no limit.
        device: Where the network runs.
        max_pixels: Larger pictures are refused before memory is taken for them.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    ensemble: Ensemble = "mean"
    overlay: bool = False
    save_prob: bool = False
    save_uncertainty: bool = False
    explain: bool = False
    format_name: str = "same"
    series: str | None = None
    skip_existing: bool = False
    shard: Shard | None = None
    max_memory: int | None = None
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOutcome:
    """What became of each input.

    Attributes:
        out: The folder of the masks.
        done: One record a file, as in predictions.json; with those that were there already.
        failed: Inputs that could not be read, each with the reason.
        skipped: How many were there already.
        stopped: The signal that ended it early, or None.
    """

    out: Path
    done: tuple[Record, ...]
    failed: tuple[Record, ...]
    skipped: int = 0
    stopped: StopSignal | None = None

    def facts(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        return {
            "out": str(self.out),
            "done": list(self.done),
            "failed": list(self.failed),
            "skipped": self.skipped,
            "stopped": self.stopped,
        }

    def text(self) -> str:
        """Give the outcome as lines for people, what failed at the end."""
        there = f", {self.skipped} of them from before" if self.skipped else ""
        lines = [f"masks:  {len(self.done)} in {self.out}{there}"]
        judged = [record["quality"] for record in self.done if record.get("quality")]
        if judged:
            unlike = sum(bool(quality["out_of_distribution"]) for quality in judged)
            mean = sum(quality["predicted_dice"] for quality in judged) / len(judged)
            lines.append(
                f"belief: predicted Dice {mean:.3f} on average, {unlike} unlike the training set "
                "(predictions.csv)"
            )
        if self.failed:
            lines.append(f"failed: {len(self.failed)}")
            lines += [f"  {failure['reason']}" for failure in self.failed]
        if self.stopped:
            lines.append(f"{self.stopped}: go on with --skip-existing")
        return "\n".join(lines)


def predict(
    inputs: Sequence[Path],
    models: Sequence[Path],
    out: Path,
    options: PredictOptions,
    *,
    progress: Progress,
) -> PredictOutcome:
    """Segment files and folders with models that are loaded once.

    A file that cannot be read does not stop the rest. `predictions.json` in `out` says for each
    input which mask it has, its hash, its time and what was noted while reading.

    Raises:
        UsageError: If an input is missing or of no known kind, `out` is among the inputs,
            explanations are asked for, memory is not enough for the model, or masks of another
            model are to be kept.
        ModelFileError: If a model cannot be trusted, or several do not belong together.
        WriteError: If a mask cannot be written.
    """
    if options.explain:
        raise UsageError(f"{models[0]} makes masks: --explain is for classifiers")
    check_format(options.format_name)
    plan = plan_outputs(
        list_images(inputs, dicom=True, series=options.series),
        out=out,
        format_name=options.format_name,
    )
    if not plan:
        raise UsageError(f"{', '.join(map(str, inputs))}: no image to predict")
    shard = options.shard or find_shard(os.environ)
    card, predictor = open_predictors(
        models, ensemble=options.ensemble, changes=options.changes, device=options.device
    )
    obstacle = None
    if not predictor.judges and wants_quality(models, options.changes):
        obstacle = find_obstacle(models, ensemble=options.ensemble, changes=options.changes)
    described = describe_model(models, card, options.ensemble, settings=options.changes)
    described["quality"] = obstacle or ("predicted" if predictor.judges else "not asked for")
    if obstacle:
        progress.on_message(obstacle)
    if options.save_uncertainty and predictor.views == 1:
        progress.on_message("no variance: one view and one network; --tta flips gives four views")
    index = PredictIndex(out=out, shard=shard, model=described)
    todo, done = _leave_out_existing(shard.choose(plan), index, options)
    skipped = len(done)
    line = _Line(card, predictor, out, options)
    failed: list[Record] = []
    with Interrupts() as interrupts, progress.task("predict", len(todo)) as advance:
        index.write(done, failed)
        try:
            for number, result in enumerate(line.run(todo, interrupts), start=1):
                if isinstance(result, ReadError):
                    failed.append({"input": str(result.path), "reason": str(result)})
                    progress.on_message(str(result))
                else:
                    done.append(result)
                advance(number, len(todo))
        finally:
            index.write(done, failed)
    return PredictOutcome(
        out=out,
        done=tuple(done),
        failed=tuple(failed),
        skipped=skipped,
        stopped=interrupts.caught,
    )


def _leave_out_existing(
    plan: Sequence[PlannedOutput], index: PredictIndex, options: PredictOptions
) -> tuple[list[PlannedOutput], list[Record]]:
    """Give what is to be done, and the records of what is there already."""
    if not options.skip_existing:
        return list(plan), []
    kept = index.read_kept()
    todo, done = [], []
    for item in plan:
        if has_results(
            index.out / item.relative,
            overlay=options.overlay,
            save_prob=options.save_prob,
            save_uncertainty=options.save_uncertainty,
        ):
            mask = str(item.relative)
            done.append(kept.get(mask, {"input": str(item.source), "mask": mask}))
        else:
            todo.append(item)
    return todo, done


def _settle(writing: "Future[Record]") -> Record | ReadError:
    """Give a record, or why there is none: a mask that its format has no place for."""
    try:
        return writing.result()
    except ReadError as error:
        return error


class _StoppedError(Exception):
    """A signal asks for the end."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Opened:
    """An input as read, with its hash and the seconds it took."""

    image: ImageFile | VolumeFile
    sha256: str
    seconds: float


class _Line:
    """Reads, predicts and writes, each in a thread of its own where memory is not limited."""

    def __init__(
        self, card: ModelCard, predictor: Predictor, out: Path, options: PredictOptions
    ) -> None:
        self._card = card
        self._predictor = predictor
        self._out = out
        self._options = options
        self._limit = None
        if options.max_memory is not None:
            self._limit = MemoryLimit(options.max_memory, predictor)

    def run(
        self, plan: Sequence[PlannedOutput], interrupts: Interrupts
    ) -> Iterator[Record | ReadError]:
        """Give the record of each input in order, or why it has none; end early at a signal."""
        if self._limit is None:
            return self._run_together(plan, interrupts)
        return self._run_alone(plan, interrupts)

    def _run_alone(
        self, plan: Sequence[PlannedOutput], interrupts: Interrupts
    ) -> Iterator[Record | ReadError]:
        """Keep one file in memory at a time."""
        for item in plan:
            try:
                result: Record | ReadError = self._finish(item, interrupts)
            except ReadError as error:
                # Its frames would keep the file in memory while the next one is read.
                result = error.with_traceback(None)
            except _StoppedError:
                return
            yield result

    def _finish(self, item: PlannedOutput, interrupts: Interrupts) -> Record:
        opened = self._open(item)
        prediction, seconds = self._predict(opened, interrupts)
        return self._write(item, opened, prediction, seconds)

    def _run_together(
        self, plan: Sequence[PlannedOutput], interrupts: Interrupts
    ) -> Iterator[Record | ReadError]:
        """Read the next file and write the last one while one is predicted."""
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            writing: Future[Record] | None = None
            for item, opening in self._open_ahead(plan, reader):
                result: Future[Record] | ReadError
                try:
                    opened = opening.result()
                    prediction, seconds = self._predict(opened, interrupts)
                except ReadError as error:
                    result = error
                except _StoppedError:
                    break
                else:
                    result = writer.submit(self._write, item, opened, prediction, seconds)
                if writing is not None:
                    yield _settle(writing)
                writing = None
                if isinstance(result, ReadError):
                    yield result
                else:
                    writing = result
            if writing is not None:
                yield _settle(writing)

    def _open_ahead(
        self, plan: Sequence[PlannedOutput], reader: ThreadPoolExecutor
    ) -> Iterator[tuple[PlannedOutput, "Future[_Opened]"]]:
        """Give each input with what becomes of opening it; the next one is begun by then."""
        ahead = [reader.submit(self._open, item) for item in plan[:1]]
        for item, following in itertools.zip_longest(plan, plan[1:]):
            current = ahead.pop()
            if following is not None:
                ahead.append(reader.submit(self._open, following))
            yield item, current

    def _open(self, item: PlannedOutput) -> _Opened:
        start = time.perf_counter()
        try:
            image = open_image(
                self._card,
                item.source,
                max_pixels=self._options.max_pixels,
                limit=self._limit,
                series=self._options.series,
            )
        except ReadError as error:
            if error.path == item.source:
                raise
            # A slice of DICOM: the input is its folder.
            raise ReadError(item.source, f"{error.path.name}: {error.reason}") from error
        digest = hash_image(image)
        return _Opened(image=image, sha256=digest, seconds=time.perf_counter() - start)

    def _predict(self, opened: _Opened, interrupts: Interrupts) -> tuple[Prediction, float]:
        """Give the labels, and the seconds spent on the file until now."""

        def check(_done: int, _all: int) -> None:
            if interrupts.caught:
                raise _StoppedError

        check(0, 1)
        start = time.perf_counter()
        options = self._options
        if self._limit is not None:
            pace = self._limit.choose_pace(
                opened.image,
                keep_probabilities=options.save_prob,
                keep_uncertainty=options.save_uncertainty,
                overlay=options.overlay,
            )
            self._predictor.set_pace(pace)
        prediction = self._predictor.predict(
            opened.image,
            keep_probabilities=options.save_prob,
            keep_uncertainty=options.save_uncertainty,
            advance=check,
        )
        return prediction, opened.seconds + time.perf_counter() - start

    def _write(
        self, item: PlannedOutput, opened: _Opened, prediction: Prediction, seconds: float
    ) -> Record:
        start = time.perf_counter()
        quality = prediction.quality
        written = write_prediction(
            prediction,
            opened.image,
            out=self._out,
            relative=item.relative,
            save_prob=self._options.save_prob,
            save_uncertainty=self._options.save_uncertainty,
            overlay=self._options.overlay,
            palette=self._options.format_name == "palette",
            classes=self._card.classes,
        )
        return {
            "input": str(item.source),
            "mask": str(item.relative),
            "files": [str(path.relative_to(self._out)) for path in written],
            "sha256": opened.sha256,
            "seconds": round(seconds + time.perf_counter() - start, 3),
            "warnings": list(opened.image.notes),
            "quality": None if quality is None else describe_quality(quality),
        }
