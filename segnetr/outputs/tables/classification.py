"""Predictions and scores of a classifier as files and as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from segnetr.config.schema.classification import ClassifyEvaluateConfig
from segnetr.errors import ReadError
from segnetr.metrics.classification import LabeledPredictions
from segnetr.metrics.classification_summary import (
    CalibrationBin,
    ClassRow,
    ClassScore,
    ClassSummary,
)
from segnetr.outputs.tables.csv_file import write_csv
from segnetr.outputs.tables.scores import text_table
from segnetr.storage.manifest import write_json

CLASSIFICATION_FORMAT = 1
_MOST_CLASSES = 20
_RIGHT = ("recall", "specificity", "precision", "f1", "auroc", "auroc 95 %")
CLASSIFICATION_RULES = {
    "decided": "the most probable class, ties to the first; with several labels, each class with a"
    " probability of at least one half",
    "undefined": "an undefined score, such as the recall of a class without cases, is excluded from"
    " the mean over classes and listed; it never counts as 0",
    "accuracy": "share of the cases that are predicted correctly; with several labels, share of all"
    " single decisions",
    "top5_accuracy": "share of the cases whose class is among the five most probable",
    "exact_match": "with several labels: share of the cases without a wrong decision",
    "balanced_accuracy": "mean recall over the classes; with several labels, mean of recall and"
    " specificity",
    "auroc": "mean over classes of the area under the ROC curve of a class against the rest; ties"
    " count one half",
    "f1": "mean over classes of the harmonic mean of precision and recall",
    "calibration_error": "mean gap between confidence and frequency over bins of equal width",
    "interval": "95 %, percentile bootstrap; cases of one patient or lesion are drawn together",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnscoredCase:
    """A case that could not be scored, and why."""

    case_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummaryFile:
    """The content of `summary.json` of a classifier.

    Attributes:
        title: The scored cases in words.
        summary: The scores.
        settings: Settings of the scoring, the fields of `ClassifyEvaluateConfig`.
        unscored: Cases that were not scored, with the reason.
    """

    title: str
    summary: ClassSummary
    settings: Mapping[str, float]
    unscored: tuple[UnscoredCase, ...]


def write_class_cases_csv(path: Path, answers: LabeledPredictions, classes: Sequence[str]) -> None:
    """Write one row per case: group, ground truth, predicted class, probabilities.

    Raises:
        WriteError: If the file cannot be written.
    """
    decisions = answers.decisions
    rows = [
        {
            "case_id": case_id,
            "group": answers.groups[row],
            "ground_truth": _join(classes, answers.ground_truth[row]),
            "decided": _join(classes, decisions[row]),
            "right": int((decisions[row] == answers.ground_truth[row]).all()),
            **_probability_cells(classes, answers.probabilities[row].tolist()),
        }
        for row, case_id in enumerate(answers.case_ids)
    ]
    columns = ["case_id", "group", "ground_truth", "decided", "right", *name_columns(classes)]
    write_csv(path, rows, columns)


def write_classes_csv(path: Path, rows: Sequence[ClassRow]) -> None:
    """Write one row per class. An undefined value is an empty cell.

    Raises:
        WriteError: If the file cannot be written.
    """
    columns = ["class", *(field.name for field in fields(ClassRow))]
    columns.remove("class_name")
    write_csv(path, [{"class": row.class_name, **_without_name(row)} for row in rows], columns)


def write_class_summary(
    path: Path,
    summary: ClassSummary,
    *,
    title: str,
    config: ClassifyEvaluateConfig,
    unscored: Sequence[UnscoredCase],
    seen: int = 0,
) -> None:
    """Write the summary with its rules and settings.

    `seen` is the number of cases that the model was trained or validated on, for another dataset.

    Raises:
        WriteError: If the file cannot be written.
    """
    content = {
        "format": CLASSIFICATION_FORMAT,
        "task": "classification",
        "title": title,
        "seen_cases": seen,
        "settings": asdict(config),
        "rules": CLASSIFICATION_RULES,
        "summary": asdict(summary),
        "unscored": [asdict(case) for case in unscored],
    }
    write_json(path, content)


def read_class_summary(path: Path) -> ClassSummaryFile:
    """Read the summary of a classifier.

    Raises:
        ReadError: If the file is missing or has another format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["task"]) != (CLASSIFICATION_FORMAT, "classification"):
            raise ReadError(
                path, f"format {content['format']}, this version reads {CLASSIFICATION_FORMAT}"
            )
        plain = content["summary"]
        summary = ClassSummary(
            cases=plain["cases"],
            groups=plain["groups"],
            scores=tuple(
                ClassScore(**{**row, "left_out": tuple(row["left_out"])}) for row in plain["scores"]
            ),
            classes=tuple(ClassRow(**row) for row in plain["classes"]),
            bins=tuple(CalibrationBin(**row) for row in plain["bins"]),
            confusions=tuple(map(tuple, plain["confusions"])),
            absent=tuple(plain["absent"]),
        )
        unscored = tuple(UnscoredCase(**case) for case in content["unscored"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(
            path, f"not a summary of a classifier ({error}); run segnetr evaluate"
        ) from error
    return ClassSummaryFile(
        title=content["title"], summary=summary, settings=content["settings"], unscored=unscored
    )


def write_predictions_csv(
    path: Path,
    files: Sequence[str],
    probabilities: Sequence[Sequence[float]],
    *,
    classes: Sequence[str],
    multi_label: bool,
) -> None:
    """Write one row per file: the predicted class or classes, and all probabilities.

    Raises:
        WriteError: If the file cannot be written.
    """
    table = np.array(probabilities, dtype=np.float64).reshape(len(files), len(classes))
    answers = LabeledPredictions(
        case_ids=tuple(files),
        probabilities=table,
        ground_truth=np.zeros(table.shape, dtype=np.int64),
        multi_label=multi_label,
        groups=("",) * len(files),
    )
    rows = [
        {
            "file": file,
            "decided": _join(classes, decided),
            **_probability_cells(classes, probabilities_of_file),
        }
        for file, decided, probabilities_of_file in zip(
            files, answers.decisions, table.tolist(), strict=True
        )
    ]
    write_csv(path, rows, ["file", "decided", *name_columns(classes)])


def name_columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the columns of probabilities."""
    return [f"p_{name}" for name in classes]


def class_summary_table(summary: ClassSummary) -> str:
    """Return scores, classes and undefined scores as text for the terminal."""
    scores = [
        {
            "metric": score.metric,
            "value": show_share(score.value),
            "95 % interval": show_range(score.low, score.high),
        }
        for score in summary.scores
    ]
    parts = [text_table(scores, right=["value", "95 % interval"])]
    if len(summary.classes) <= _MOST_CLASSES:
        parts.append(text_table([_describe_row(row) for row in summary.classes], right=_RIGHT))
    return "\n".join("\n\n".join(parts).split("\n") + describe_undefined(summary))


def describe_undefined(summary: ClassSummary) -> list[str]:
    """Return one line for each undefined score."""
    lines = []
    if summary.absent:
        lines.append(f"no case of {', '.join(summary.absent)}: its scores are undefined")
    for score in summary.scores:
        if score.value is None:
            lines.append(f"{score.metric} is undefined for these cases")
        elif score.left_out:
            lines.append(f"{score.metric}: mean without {', '.join(score.left_out)}")
    return lines


def show_share(value: float | None) -> str:
    """Return a share as text; an undefined one as a dash."""
    return "-" if value is None else f"{value:.3f}"


def show_range(low: float | None, high: float | None) -> str:
    """Return an interval as text; an undefined one as a dash."""
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _describe_row(row: ClassRow) -> dict[str, Any]:
    return {
        "class": row.class_name,
        "cases": row.cases,
        "predicted": row.decided,
        "recall": show_share(row.recall),
        "specificity": show_share(row.specificity),
        "precision": show_share(row.precision),
        "f1": show_share(row.f1),
        "auroc": show_share(row.auroc),
        "auroc 95 %": show_range(row.auroc_low, row.auroc_high),
    }


def _join(classes: Sequence[str], held: Any) -> str:
    return "; ".join(name for name, holds in zip(classes, held, strict=True) if holds)


def _probability_cells(classes: Sequence[str], values: Sequence[float]) -> dict[str, str]:
    return dict(zip(name_columns(classes), map(repr, values), strict=True))


def _without_name(row: ClassRow) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "class_name"}
