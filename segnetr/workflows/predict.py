"""`segnetr predict`: masks for files and folders, one bad file at a time."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segnetr.data.files.image_file import DEFAULT_MAX_PIXELS
from segnetr.data.files.stored_header import DicomSeries
from segnetr.data.readers import ImageFile, list_images
from segnetr.engine.fold_dir import FoldDir, is_cross_validation
from segnetr.engine.manifest import hash_file, write_json
from segnetr.engine.predictor import Predictor
from segnetr.engine.progress import Progress
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.mask_format import check_format
from segnetr.outputs.masks import PlannedOutput, plan_outputs, write_prediction
from segnetr.outputs.model_file import WEIGHTS_NAME, ModelCard, find_model_folder
from segnetr.workflows.model_folder import open_predictor, read_for

INDEX_NAME = "predictions.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions:
    """What a prediction writes, and how.

    Attributes:
        changes: Settings put over the model's own `predict` section.
        overlay: Write pictures with contours as well.
        save_prob: Write probabilities as well.
        explain: With a classifier: write what its answers rest on as well.
        format_name: Format of the masks, one of `segnetr.outputs.mask_format.MASK_FORMATS`.
        series: SeriesInstanceUID of the DICOM series to take, where a folder holds several.
        device: Where the network runs.
        max_pixels: Larger images are refused before memory is taken for them.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    overlay: bool = False
    save_prob: bool = False
    explain: bool = False
    format_name: str = "same"
    series: str | None = None
    device: str = "auto"
    max_pixels: int = DEFAULT_MAX_PIXELS


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOutcome:
    """What became of each input.

    Attributes:
        out: The folder of the masks.
        done: One record a file, as in predictions.json.
        failed: Inputs that could not be read, each with the reason.
    """

    out: Path
    done: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, str], ...]

    def facts(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        return {"out": str(self.out), "done": list(self.done), "failed": list(self.failed)}

    def text(self) -> str:
        """Give the outcome as lines for people, what failed at the end."""
        lines = [f"masks:  {len(self.done)} in {self.out}"]
        if self.failed:
            lines.append(f"failed: {len(self.failed)}")
            lines += [f"  {failure['reason']}" for failure in self.failed]
        return "\n".join(lines)


def predict(
    inputs: Sequence[Path], model: Path, out: Path, options: PredictOptions, *, progress: Progress
) -> PredictOutcome:
    """Segment files and folders with a model that is loaded once.

    A file that cannot be read does not stop the rest. `predictions.json` in `out` says for each
    input which mask it has, its hash, its time and what was noted while reading.

    Raises:
        UsageError: If an input is missing or of no known kind, `out` is among the inputs, or
            explanations are asked for.
        ModelFileError: If the model cannot be trusted.
        WriteError: If a mask cannot be written.
    """
    if options.explain:
        raise UsageError(f"{model} makes masks: --explain is for classifiers")
    check_format(options.format_name)
    plan = plan_outputs(
        list_images(inputs, dicom=True, series=options.series),
        out=out,
        format_name=options.format_name,
    )
    if not plan:
        raise UsageError(f"{', '.join(map(str, inputs))}: no image to predict")
    card, predictor = open_predictor(model, changes=options.changes, device=options.device)
    done: list[Mapping[str, Any]] = []
    failed: list[Mapping[str, str]] = []
    with progress.task("predict", len(plan)) as advance:
        for number, item in enumerate(plan, start=1):
            try:
                done.append(_predict_one(item, card, predictor, out, options))
            except ReadError as error:
                failed.append({"input": str(item.source), "reason": str(error)})
                progress.on_message(str(error))
            advance(number, len(plan))
    _write_index(out, model, card, done=done, failed=failed)
    return PredictOutcome(out=out, done=tuple(done), failed=tuple(failed))


def _predict_one(
    item: PlannedOutput, card: ModelCard, predictor: Predictor, out: Path, options: PredictOptions
) -> Mapping[str, Any]:
    start = time.perf_counter()
    image = read_for(card, item.source, max_pixels=options.max_pixels, series=options.series)
    prediction = predictor.predict(image, keep_probabilities=options.save_prob)
    written = write_prediction(
        prediction,
        image,
        out=out,
        relative=item.relative,
        save_prob=options.save_prob,
        overlay=options.overlay,
        palette=options.format_name == "palette",
        classes=card.classes,
    )
    return {
        "input": str(item.source),
        "mask": str(item.relative),
        "files": [str(path.relative_to(out)) for path in written],
        "sha256": hash_image(image),
        "seconds": round(time.perf_counter() - start, 3),
        "notes": list(image.notes),
    }


def hash_image(image: ImageFile) -> str:
    """Hash the file of an image; of a series in a folder, the lines of its slices' hashes."""
    if not (isinstance(image.stored, DicomSeries) and image.path.is_dir()):
        return hash_file(image.path)
    lines = [hash_file(image.path / name) for name in image.stored.names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _hash_weights(model: Path) -> str:
    """Hash the weights; of several networks, the lines of their hashes."""
    if not is_cross_validation(model):
        return hash_file(find_model_folder(model) / WEIGHTS_NAME)
    members = [
        hash_file(find_model_folder(path) / WEIGHTS_NAME) for path in FoldDir(model).models()
    ]
    return hashlib.sha256("\n".join(members).encode()).hexdigest()


def _write_index(
    out: Path,
    model: Path,
    card: ModelCard,
    *,
    done: Sequence[Mapping[str, Any]],
    failed: Sequence[Mapping[str, str]],
) -> None:
    content = {
        "model": {
            "path": str(model),
            "sha256": _hash_weights(model),
            "classes": list(card.classes),
            "created_by": card.created_by,
        },
        "done": list(done),
        "failed": list(failed),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / INDEX_NAME, content)
