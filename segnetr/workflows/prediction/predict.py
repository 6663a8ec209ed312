"""`segnetr predict`: write masks for files and folders. Invalid files do not stop the others."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from segnetr.config.shards import find_shard
from segnetr.data.readers.file_list import list_images
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.training.signals import SignalHandler, StopSignal
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.masks.format import check_format
from segnetr.outputs.masks.output_paths import has_results
from segnetr.outputs.masks.writer import OutputPath, plan_output_paths
from segnetr.progress import Progress
from segnetr.workflows.prediction.index import (
    INDEX_NAME,
    PredictIndex,
    describe_model,
    lock_predictions,
)
from segnetr.workflows.prediction.model_folder import open_predictors
from segnetr.workflows.prediction.model_quality import find_obstacle, wants_quality
from segnetr.workflows.prediction.options import PredictOptions
from segnetr.workflows.prediction.pipeline import PredictionPipeline
from segnetr.workflows.prediction.records import EARLIER_MODEL, Record, is_same_model

__all__ = ["INDEX_NAME", "PredictOptions", "PredictOutcome", "predict"]

# So that a process that is killed loses few records.
_SECONDS_BETWEEN_WRITES: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOutcome:
    """Outcome of each input.

    Attributes:
        out: Folder of the masks.
        done: One record per file, as in predictions.json, including those that already existed.
        failed: Inputs that could not be read, each with the reason.
        skipped: Number of masks that already existed.
        stopped: Signal that ended the command early, or None.
    """

    out: Path
    done: tuple[Record, ...]
    failed: tuple[Record, ...]
    skipped: int = 0
    stopped: StopSignal | None = None

    def to_dict(self) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        return {
            "out": str(self.out),
            "done": list(self.done),
            "failed": list(self.failed),
            "skipped": self.skipped,
            "stopped": self.stopped,
        }

    def __str__(self) -> str:
        """Return the outcome as lines of text, failures last."""
        there = f", {self.skipped} of them from an earlier run" if self.skipped else ""
        lines = [f"masks:  {len(self.done)} in {self.out}{there}"]
        estimates = [record["quality"] for record in self.done if record.get("quality")]
        if estimates:
            unlike = sum(bool(quality["out_of_distribution"]) for quality in estimates)
            known = [
                quality["predicted_dice"]
                for quality in estimates
                if quality["predicted_dice"] is not None
            ]
            mean = f"mean predicted Dice {sum(known) / len(known):.3f}, " if known else ""
            lines.append(f"quality: {mean}{unlike} out of distribution (predictions.csv)")
        if self.failed:
            lines.append(f"failed: {len(self.failed)}")
            lines += [f"  {failure['reason']}" for failure in self.failed]
        if self.stopped:
            lines.append(f"{self.stopped}: continue with --skip-existing")
        return "\n".join(lines)


def predict(
    inputs: Sequence[Path],
    models: Sequence[Path],
    out: Path,
    options: PredictOptions,
    *,
    progress: Progress,
) -> PredictOutcome:
    """Segment files and folders. The models are loaded once.

    A file that cannot be read does not stop the others. `predictions.json` in `out` lists for each
    input its mask, hash, time and warnings. It keeps the records of earlier calls.

    Raises:
        UsageError: If an input is missing or of unknown kind, `out` is among the inputs,
            explanations are requested, the memory limit is too low for the model, another
            process writes to `out`, or masks of another model would be kept.
        ModelFileError: If a model is invalid, or several do not fit together.
        WriteError: If a mask cannot be written.
    """
    if options.explain:
        raise UsageError(f"{models[0]} is a segmentation model: --explain is for classifiers")
    check_format(options.format_name)
    plan = plan_output_paths(
        list_images(inputs, dicom=True, series=options.series),
        out=out,
        format_name=options.format_name,
    )
    if not plan:
        raise UsageError(f"{', '.join(map(str, inputs))}: no image to predict")
    shard = options.shard or find_shard(os.environ)
    tune_malloc(options.max_memory)
    card, predictor = open_predictors(
        models, ensemble=options.ensemble, changes=options.changes, device=options.device
    )
    obstacle = None
    has_quality = predictor.collects_features
    if wants_quality(models, options.changes):
        obstacle = find_obstacle(models, ensemble=options.ensemble, changes=options.changes)
    described = describe_model(models, card, options.ensemble, settings=options.changes)
    described["quality"] = obstacle or ("predicted" if has_quality else "not asked for")
    if obstacle:
        progress.on_message(obstacle)
    if options.save_uncertainty and predictor.num_views == 1:
        progress.on_message("no variance map: it needs an ensemble or --tta flips")
    index = PredictIndex(out=out, shard=shard, model=described)
    pipeline = PredictionPipeline(card, predictor, out, options)
    with lock_predictions(out, shard, progress):
        return _predict(shard.choose(plan), pipeline, index, options, progress=progress)


def _predict(
    plan: Sequence[OutputPath],
    pipeline: PredictionPipeline,
    index: PredictIndex,
    options: PredictOptions,
    *,
    progress: Progress,
) -> PredictOutcome:
    """Predict in a folder that this process has locked."""
    todo, done = _skip_existing(plan, index, options, progress)
    skipped = len(done)
    failed: list[Record] = []
    with SignalHandler() as interrupts, progress.task("predict", len(todo)) as advance:
        index.write(done, failed)
        written_at = time.monotonic()
        try:
            for number, result in enumerate(pipeline.run(todo, interrupts), start=1):
                if isinstance(result, ReadError):
                    failed.append({"input": str(result.path), "reason": str(result)})
                    progress.on_message(str(result))
                else:
                    done.append(result)
                advance(number, len(todo))
                if time.monotonic() - written_at > _SECONDS_BETWEEN_WRITES:
                    index.write(done, failed)
                    written_at = time.monotonic()
        finally:
            index.write(done, failed)
    return PredictOutcome(
        out=index.out,
        done=tuple(done),
        failed=tuple(failed),
        skipped=skipped,
        stopped=interrupts.caught,
    )


def _skip_existing(
    plan: Sequence[OutputPath], index: PredictIndex, options: PredictOptions, progress: Progress
) -> tuple[list[OutputPath], list[Record]]:
    """Return the remaining outputs, and the records of existing ones."""
    existing = index.read_existing()
    records = {record["mask"]: record for record in existing.done}
    if not options.skip_existing:
        _report_replaced(plan, records, index.out, progress)
        return list(plan), []
    todo: list[OutputPath] = []
    done: list[Record] = []
    for item in plan:
        if has_results(
            index.out / item.relative,
            overlay=options.overlay,
            save_prob=options.save_prob,
            save_uncertainty=options.save_uncertainty,
        ):
            mask = str(item.relative)
            record = records.get(mask, {"input": str(item.source), "mask": mask})
            if not is_same_model(existing.find_model(record), index.model):
                raise UsageError(
                    f"{index.path}: its masks were made by another model or with other settings; "
                    "use another --out, or omit --skip-existing to replace them"
                )
            done.append({name: value for name, value in record.items() if name != EARLIER_MODEL})
        else:
            todo.append(item)
    return todo, done


def _report_replaced(
    plan: Sequence[OutputPath], records: Mapping[str, Record], out: Path, progress: Progress
) -> None:
    """Report masks of other inputs that this call replaces."""
    replaced = [
        record["mask"]
        for item in plan
        if (record := records.get(str(item.relative))) and record["input"] != str(item.source)
    ]
    if replaced:
        progress.on_message(
            f"{out}: {len(replaced)} masks of other inputs are replaced, such as {replaced[0]}"
        )
