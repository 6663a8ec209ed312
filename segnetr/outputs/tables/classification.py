"""A classifier's answers and scores as files and as lines."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from segnetr.config.schema.classification import ClassifyEvaluateConfig
from segnetr.errors import ReadError
from segnetr.metrics.classification import Answers
from segnetr.metrics.classification_summary import (
    CalibrationBin,
    ClassRow,
    ClassScore,
    ClassSummary,
)
from segnetr.outputs.tables.scores import text_table
from segnetr.storage.manifest import write_json, write_text_atomic

FORMAT = 1
RULES = {
    "decided": "the most probable class, of equal ones the first; with several labels, each whose"
    " probability is at least one half",
    "undefined": "a score that the cases do not define, as the recall of a class that no case has,"
    " is left out of the mean over classes and named; it never counts as 0",
    "accuracy": "share of the cases decided rightly; with several labels, of all decisions",
    "top5_accuracy": "share of the cases whose class is among the five most probable",
    "exact_match": "with several labels: share of the cases with no wrong decision",
    "balanced_accuracy": "mean recall over the classes; with several labels, mean of recall and"
    " specificity",
    "auroc": "area under the ROC curve of each class against the rest, ties one half; the mean",
    "f1": "harmonic mean of precision and recall of each class; the mean",
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
    """What `summary.json` of a classifier holds.

    Attributes:
        title: What was scored, for people.
        summary: The scores.
        settings: How was scored, the fields of `ClassifyEvaluateConfig`.
        unscored: Cases left out, with the reason.
    """

    title: str
    summary: ClassSummary
    settings: Mapping[str, float]
    unscored: tuple[UnscoredCase, ...]


def write_class_cases_csv(path: Path, answers: Answers, classes: Sequence[str]) -> None:
    """Write one row per case: ground truth, decision, group and full-precision probabilities.

    Raises:
        WriteError: If the file cannot be written.
    """
    header = ["case_id", "group", "ground_truth", "decided", "right", *name_columns(classes)]
    decisions = answers.decisions
    rows = []
    for row, case_id in enumerate(answers.case_ids):
        right = bool((decisions[row] == answers.ground_truth[row]).all())
        rows.append(
            [
                case_id,
                answers.groups[row],
                _join(classes, answers.ground_truth[row]),
                _join(classes, decisions[row]),
                int(right),
                *map(repr, answers.probabilities[row].tolist()),
            ]
        )
    _write_csv(path, header, rows)


def write_classes_csv(path: Path, rows: Sequence[ClassRow]) -> None:
    """Write one row a class; an undefined value is an empty cell.

    Raises:
        WriteError: If the file cannot be written.
    """
    names = [field.name for field in fields(ClassRow)]
    table = [["" if value is None else value for value in asdict(row).values()] for row in rows]
    _write_csv(path, ["class", *names[1:]], table)


def write_class_summary(
    path: Path,
    summary: ClassSummary,
    *,
    title: str,
    config: ClassifyEvaluateConfig,
    unscored: Sequence[UnscoredCase],
) -> None:
    """Write the summary with the rules and settings it was made by.

    Raises:
        WriteError: If the file cannot be written.
    """
    content = {
        "format": FORMAT,
        "task": "classification",
        "title": title,
        "settings": asdict(config),
        "rules": RULES,
        "summary": asdict(summary),
        "unscored": [asdict(case) for case in unscored],
    }
    write_json(path, content)


def read_class_summary(path: Path) -> ClassSummaryFile:
    """Read back what `write_class_summary` wrote.

    Raises:
        ReadError: If the file is missing, or not of this format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (content["format"], content["task"]) != (FORMAT, "classification"):
            raise ReadError(path, f"format {content['format']}, this version reads {FORMAT}")
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
            path, f"no summary of a classifier ({error}); run segnetr evaluate"
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
    several: bool,
) -> None:
    """Write one row a file: the decided class or classes, and all probabilities.

    Raises:
        WriteError: If the file cannot be written.
    """
    table = np.array(probabilities, dtype=np.float64).reshape(len(files), len(classes))
    answers = Answers(
        case_ids=tuple(files),
        probabilities=table,
        ground_truth=np.zeros(table.shape, dtype=np.int64),
        several=several,
        groups=("",) * len(files),
    )
    rows = [
        [file, _join(classes, decided), *map(repr, row)]
        for file, decided, row in zip(files, answers.decisions, table.tolist(), strict=True)
    ]
    _write_csv(path, ["file", "decided", *name_columns(classes)], rows)


def name_columns(classes: Sequence[str]) -> list[str]:
    """Give the columns of probabilities their names."""
    return [f"p_{name}" for name in classes]


def class_summary_table(summary: ClassSummary) -> str:
    """Lay out scores for a terminal, then the classes, then what is undefined."""
    scores = [
        {
            "metric": score.metric,
            "value": show_share(score.value),
            "95 % interval": show_range(score.low, score.high),
        }
        for score in summary.scores
    ]
    parts = [text_table(scores, right=["value", "95 % interval"])]
    if len(summary.classes) <= _MOST_SHOWN:
        parts.append(text_table([_describe_row(row) for row in summary.classes], right=_RIGHT))
    return "\n".join("\n\n".join(parts).split("\n") + describe_undefined(summary))


def describe_undefined(summary: ClassSummary) -> list[str]:
    """Say in lines what could not be measured."""
    lines = []
    if summary.absent:
        lines.append(f"no case of {', '.join(summary.absent)}: scores of it are undefined")
    for score in summary.scores:
        if score.value is None:
            lines.append(f"{score.metric} is undefined for these cases")
        elif score.left_out:
            lines.append(f"{score.metric}: mean without {', '.join(score.left_out)}")
    return lines


def show_share(value: float | None) -> str:
    """Give a share for people; undefined as a dash."""
    return "-" if value is None else f"{value:.3f}"


def show_range(low: float | None, high: float | None) -> str:
    """Give an interval for people."""
    return "-" if low is None or high is None else f"{low:.3f} to {high:.3f}"


_MOST_SHOWN = 20
_RIGHT = ("recall", "specificity", "precision", "f1", "auroc", "auroc 95 %")


def _describe_row(row: ClassRow) -> dict[str, Any]:
    return {
        "class": row.class_name,
        "cases": row.cases,
        "decided": row.decided,
        "recall": show_share(row.recall),
        "specificity": show_share(row.specificity),
        "precision": show_share(row.precision),
        "f1": show_share(row.f1),
        "auroc": show_share(row.auroc),
        "auroc 95 %": show_range(row.auroc_low, row.auroc_high),
    }


def _join(classes: Sequence[str], held: Any) -> str:
    return "; ".join(name for name, holds in zip(classes, held, strict=True) if holds)


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())
