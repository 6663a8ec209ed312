"""`segnetr predict` with a classifier: write a table of probabilities, one row per file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from segnetr.config.shards import Shard
from segnetr.data.classification.case import ClassificationCase
from segnetr.data.classification.loaders import load_image
from segnetr.data.readers.file_list import list_images
from segnetr.engine.inference.classifier import Classifier
from segnetr.errors import ReadError, UsageError
from segnetr.outputs.explanations.explain import explain_image
from segnetr.outputs.masks.overlay import to_display
from segnetr.outputs.models.classifier_file import ClassifierCard
from segnetr.outputs.models.model_file import WEIGHTS_NAME, find_model_folder
from segnetr.outputs.tables.classification import write_predictions_csv
from segnetr.progress import Progress
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import hash_file, write_json
from segnetr.workflows.classification.network import open_classifier
from segnetr.workflows.prediction.index import INDEX_NAME, lock_predictions
from segnetr.workflows.prediction.options import PredictOptions
from segnetr.workflows.prediction.records import Record, Records, read_records

TABLE_NAME = "predictions.csv"
EXPLANATIONS = "explanations"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassPredictions:
    """The results of all inputs.

    Attributes:
        table: The table of probabilities.
        done: A record for each file: its path and the probabilities by class.
        failed: Inputs that could not be read, with the reasons.
    """

    table: Path
    done: tuple[Mapping[str, Any], ...]
    failed: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        return {"table": str(self.table), "done": list(self.done), "failed": list(self.failed)}

    def __str__(self) -> str:
        """Return the outcome as lines of text, failed inputs last."""
        lines = [f"table:  {len(self.done)} rows in {self.table}"]
        if self.failed:
            lines.append(f"failed: {len(self.failed)}")
            lines += [f"  {failure['reason']}" for failure in self.failed]
        return "\n".join(lines)


def predict_classes(
    inputs: Sequence[Path],
    models: Sequence[Path],
    out: Path,
    options: PredictOptions,
    *,
    progress: Progress,
) -> ClassPredictions:
    """Write the class probabilities of files and folders.

    Unreadable files are skipped. `predictions.json` in `out` lists the model, the results and the
    failed inputs. Both files keep the rows of earlier calls for other inputs. Explanations of the
    most probable class are written to `explanations/` in `out`.

    Raises:
        UsageError: If an input is missing or of an unknown format, a flag for masks is set,
            there are several models, another process writes to `out`, or `out` has predictions
            with other classes.
        ModelFileError: If the model is missing or damaged.
        WriteError: If the table cannot be written.
    """
    model = models[0]
    if len(models) > 1:
        raise UsageError(
            f"{model} and {len(models) - 1} more: classifiers cannot be combined; use one --model"
        )
    _reject_mask_flags(model, options)
    if options.overlay or options.save_prob:
        raise UsageError(
            f"{model} is a classifier: --overlay and --save-prob are for masks; its probabilities "
            f"are in {TABLE_NAME}"
        )
    files = list_images(inputs)
    card, classifier = open_classifier(model, changes=options.changes, device=options.device)
    described = _describe_model(model, card)
    with lock_predictions(out, Shard(), progress):
        earlier = _read_earlier(out, described, card)
        done, failed = _predict_files(files, card, classifier, out, options, progress)
        records = earlier.extend(
            Records(model=described, done=tuple(done), failed=tuple(failed)), key="input"
        )
        with as_write_error(out):
            out.mkdir(parents=True, exist_ok=True)
        table = out / TABLE_NAME
        write_predictions_csv(
            table,
            [record["input"] for record in records.done],
            [[record["probabilities"][name] for name in card.classes] for record in records.done],
            classes=card.classes,
            multi_label=card.multi_label,
        )
        write_json(out / INDEX_NAME, {**records.to_dict(), "table": TABLE_NAME})
    return ClassPredictions(table=table, done=tuple(done), failed=tuple(failed))


def _predict_files(
    files: Sequence[tuple[Path, Path]],
    card: ClassifierCard,
    classifier: Classifier,
    out: Path,
    options: PredictOptions,
    progress: Progress,
) -> tuple[list[Record], list[Record]]:
    """Return the records of the predicted files, and those of unreadable ones."""
    done: list[Record] = []
    failed: list[Record] = []
    with progress.task("predict", len(files)) as advance:
        for start in range(0, len(files), classifier.batch_size):
            inputs_read: list[_Input] = []
            for path, relative in files[start : start + classifier.batch_size]:
                try:
                    inputs_read.append(_read_input(path, relative, card, classifier, options))
                except ReadError as error:
                    failed.append({"input": str(path), "reason": str(error)})
                    progress.on_message(str(error))
            if inputs_read:
                rows = classifier.estimate([one.image for one in inputs_read]).tolist()
                done += [
                    {
                        "input": str(one.path),
                        "probabilities": dict(zip(card.classes, row, strict=True)),
                    }
                    for one, row in zip(inputs_read, rows, strict=True)
                ]
                if options.explain:
                    _explain(inputs_read, rows, classifier, out)
            advance(min(start + classifier.batch_size, len(files)), len(files))
    return done, failed


def _read_earlier(out: Path, described: Mapping[str, Any], card: ClassifierCard) -> Records:
    """Return the records of earlier calls, whose rows the table keeps.

    Raises:
        UsageError: If they have other classes, so that the columns of the table would differ.
    """
    path = out / INDEX_NAME
    earlier = read_records(path, key="input") or Records(model=described)
    if any(set(record.get("probabilities", ())) != set(card.classes) for record in earlier.done):
        raise UsageError(f"{path}: its rows have other classes; choose another --out")
    return earlier


def _reject_mask_flags(model: Path, options: PredictOptions) -> None:
    for name, given in (
        ("--max-memory", options.max_memory is not None),
        ("--skip-existing", options.skip_existing),
        ("--shard", options.shard is not None),
        ("--format", options.format_name != "same"),
        ("--series", options.series is not None),
    ):
        if given:
            raise UsageError(f"{model} is a classifier: {name} is for segmentation models")


@dataclass(frozen=True, slots=True)
class _Input:
    """A file, its pixels at the input size of the network, and the same pixels normalized."""

    path: Path
    relative: Path
    pixels: NDArray[Any]
    image: Tensor


def _read_input(
    path: Path,
    relative: Path,
    card: ClassifierCard,
    classifier: Classifier,
    options: PredictOptions,
) -> _Input:
    case = ClassificationCase(case_id=path.name, image=path, labels=())
    pixels = load_image(case, channels=card.in_channels, max_pixels=options.max_pixels)
    return _Input(path, relative, classifier.fit(pixels), classifier.prepare(pixels))


def _explain(
    inputs: Sequence[_Input],
    probabilities: Sequence[Sequence[float]],
    classifier: Classifier,
    out: Path,
) -> None:
    for one, row in zip(inputs, probabilities, strict=True):
        explain_image(
            classifier.model,
            one.image[None].to(classifier.device),
            target=row.index(max(row)),
            out=out / EXPLANATIONS,
            name=str(one.relative),
            pixels=to_display(one.pixels),
        )


def _describe_model(model: Path, card: ClassifierCard) -> dict[str, Any]:
    return {
        "path": str(model),
        "sha256": hash_file(find_model_folder(model) / WEIGHTS_NAME),
        "backbone": card.backbone,
        "classes": list(card.classes),
        "created_by": card.created_by,
    }
