"""`segnetr predict`: masks for files and folders, one bad file at a time."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.shards import find_shard
from segnetr.data.readers.file_list import list_images
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.training.signals import SignalHandler, StopSignal
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.masks.format import check_format
from segnetr.outputs.masks.output_paths import has_results
from segnetr.outputs.masks.writer import OutputPath, plan_output_paths
from segnetr.progress import Progress
from segnetr.workflows.prediction.index import INDEX_NAME, PredictIndex, Record, describe_model
from segnetr.workflows.prediction.model_folder import open_predictors
from segnetr.workflows.prediction.model_quality import find_obstacle, wants_quality
from segnetr.workflows.prediction.options import PredictOptions
from segnetr.workflows.prediction.pipeline import PredictionPipeline

__all__ = ["INDEX_NAME", "PredictOptions", "PredictOutcome", "predict"]


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

    def to_dict(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        return {
            "out": str(self.out),
            "done": list(self.done),
            "failed": list(self.failed),
            "skipped": self.skipped,
            "stopped": self.stopped,
        }

    def __str__(self) -> str:
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
    line = PredictionPipeline(card, predictor, out, options)
    failed: list[Record] = []
    with SignalHandler() as interrupts, progress.task("predict", len(todo)) as advance:
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
    plan: Sequence[OutputPath], index: PredictIndex, options: PredictOptions
) -> tuple[list[OutputPath], list[Record]]:
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
