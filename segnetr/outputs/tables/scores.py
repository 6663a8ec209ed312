"""Scores as files and as text: `per_case.csv`, `summary.json`, a table for the terminal."""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.errors import ReadError
from segnetr.metrics import PIXEL_COUNTS, Score, Summary, Unscored, name_outcome
from segnetr.metrics.registry import get_metric
from segnetr.outputs.tables.csv_file import escape_formula, unescape_formula
from segnetr.storage.manifest import write_json, write_text_atomic

if TYPE_CHECKING:
    # The evaluator imports the readers and MONAI, which a table does not need.
    from segnetr.engine.evaluation.evaluator import Evaluation

SCORES_FORMAT = 1
SCORE_RULES = {
    "scored": "each case and foreground class separately, on the grid of the file",
    "lengths": "metrics that end in mm are in millimeters, in px in pixels",
    "both_empty": "dice, iou and isic_jaccard are 1; distances and nsd are undefined: excluded"
    " from the mean and counted",
    "missed": "dice, iou, isic_jaccard and nsd are 0; hd95 and assd are the image's diagonal",
    "false_alarm": "as for false negatives",
    "border": "pixels of a mask with a side neighbor outside the mask",
    "interval": "95 %, percentile bootstrap over patients",
    "dice_pooled": "pixels of all cases added before dividing",
    "mean": "rows of class 'mean': the mean over the classes of each case",
}
_ID_COLUMNS = ("case_id", "class", "outcome")


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryFile:
    """The content of `summary.json`.

    Attributes:
        title: The scored cases in words.
        summaries: One row for each class and metric.
        settings: Settings of the scoring, the fields of `EvaluateConfig`.
        unscored: Cases that were not scored, with the reason.
        tta: Test-time augmentation of the prediction; empty: not known.
    """

    title: str
    summaries: tuple[Summary, ...]
    settings: Mapping[str, float]
    unscored: tuple[Unscored, ...]
    tta: str = ""


def write_per_case_csv(path: Path, scores: Iterable[Score]) -> None:
    """Write one row for each case and class, one column for each metric.

    Numbers have all their digits; an undefined value is an empty cell. `outcome` is "found",
    "missed" (false negative), "false_alarm" (false positive) or "both_empty".

    Raises:
        WriteError: If the file cannot be written.
    """
    rows: dict[tuple[str, str], dict[str, float | None]] = {}
    metrics: dict[str, None] = {}
    for score in scores:
        rows.setdefault((score.case_id, score.class_name), {})[score.metric] = score.value
        metrics[score.metric] = None
    names = [name for name in metrics if name not in PIXEL_COUNTS] + list(PIXEL_COUNTS)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_ID_COLUMNS, *names])
    for (case_id, class_name), values in rows.items():
        cells = [_exact(name, values.get(name)) for name in names]
        writer.writerow([*map(escape_formula, (case_id, class_name)), name_outcome(values), *cells])
    write_text_atomic(path, text.getvalue())


# Columns of version 0.1 and their current names.
_OLD_COLUMNS = {"truth_pixels": "ground_truth_pixels"}  # words: allow


def read_per_case_csv(path: Path) -> list[Score]:
    """Read the scores of each case and class.

    Raises:
        ReadError: If the file is missing or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        if tuple(header[: len(_ID_COLUMNS)]) != _ID_COLUMNS:
            raise ReadError(path, f"not a table of scores: its header is {header}")
        header = [_OLD_COLUMNS.get(name, name) for name in header]
        return [
            Score(
                case_id=unescape_formula(row[0]),
                class_name=unescape_formula(row[1]),
                metric=name,
                value=float(cell) if cell else None,
            )
            for row in rows
            for name, cell in zip(header, row, strict=True)
            if name not in _ID_COLUMNS
        ]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ReadError(path, f"not a table of scores ({error}); run segnetr evaluate") from error


def write_summary_json(
    path: Path,
    evaluation: "Evaluation",
    *,
    title: str,
    config: EvaluateConfig,
    tta: str = "",
    seen: int = 0,
) -> None:
    """Write the summary with its rules and settings.

    Args:
        path: The file.
        evaluation: The scores.
        title: The scored cases in words.
        config: Settings of the scoring.
        tta: Test-time augmentation of the prediction; empty: the masks were read from files.
        seen: Number of cases that the model was trained or validated on, for another dataset.

    Raises:
        WriteError: If the file cannot be written.
    """
    write_json(
        path,
        {
            "format": SCORES_FORMAT,
            "title": title,
            "seen_cases": seen,
            "settings": asdict(config),
            "tta": tta,
            "rules": SCORE_RULES,
            "summaries": [asdict(row) for row in evaluation.summaries],
            "unscored": [asdict(case) for case in evaluation.unscored],
        },
    )


def read_summary_json(path: Path) -> SummaryFile:
    """Read a summary.

    Raises:
        ReadError: If the file is missing or has another format.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != SCORES_FORMAT:
            raise ReadError(path, f"format {content['format']}, this version reads {SCORES_FORMAT}")
        return SummaryFile(
            title=content["title"],
            summaries=tuple(Summary(**row) for row in content["summaries"]),
            settings=content["settings"],
            tta=str(content.get("tta", "")),
            unscored=tuple(Unscored(**case) for case in content["unscored"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(path, f"not a summary of scores ({error}); run segnetr evaluate") from error


def text_table(rows: Sequence[Mapping[str, Any]], *, right: Collection[str] = ()) -> str:
    """Return rows as a table for the terminal.

    Args:
        rows: Cells by column, all with the same keys. Numbers are right-aligned and have four
            significant digits; None is a dash.
        right: Further columns to right-align.

    Returns:
        A header, a rule and a line for each row; an empty text without rows.
    """
    if not rows:
        return ""
    columns = [
        _align_column(name, [row[name] for row in rows], to_right=name in right) for name in rows[0]
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def _align_column(name: str, values: Sequence[Any], *, to_right: bool) -> list[str]:
    """Return the header, the rule and the cells of a column, padded to one width."""
    cells = [name.replace("_", " "), *map(_show, values)]
    width = max(map(len, cells))
    known = [value for value in values if value is not None]
    is_number = bool(known) and all(_is_number(value) for value in known)
    align = str.rjust if is_number or to_right else str.ljust
    cells.insert(1, "-" * width)
    return [align(cell, width) for cell in cells]


def summary_table(summaries: Sequence[Summary]) -> str:
    """Return summaries as a table for the terminal, followed by the counts of each class."""
    if not summaries:
        return "no case was scored"
    rows = [_readable(row) for row in summaries]
    table = text_table(rows, right=[name for name in rows[0] if name not in ("class", "metric")])
    return "\n".join([table, "", *describe_counts(summaries)])


def describe_counts(summaries: Sequence[Summary]) -> list[str]:
    """Return one line for each class: false negatives, false positives, empty in both."""
    first = {row.class_name: row for row in reversed(summaries) if row.metric == "dice"}
    return [
        f"{row.class_name}: {row.missed} false negatives, {row.false_alarms} false positives,"
        f" {row.both_empty} empty in both, of {row.cases} cases"
        for row in reversed(list(first.values()))
    ]


def show_number(value: float | None, *, metric: str) -> str:
    """Return a value as text: shares with 3 decimals, lengths with 2 or 1, undefined as a dash."""
    if value is None:
        return "-"
    if is_length(metric):
        return f"{value:.2f}" if value < 100 else f"{value:.1f}"
    return f"{value:.3f}"


def is_length(metric: str) -> bool:
    """Return whether a metric is a length in mm or pixels; other metrics are shares."""
    return get_metric(metric).unit == "length"


def show_interval(row: Summary) -> str:
    """Return the interval of a row as text."""
    if row.low is None or row.high is None:
        return "-"
    low, high = (show_number(value, metric=row.metric) for value in (row.low, row.high))
    return f"{low} to {high}"


def _readable(row: Summary) -> dict[str, str]:
    mean, std, median = (
        show_number(value, metric=row.metric) for value in (row.mean, row.std, row.median)
    )
    counted = row.cases - row.undefined
    return {
        "class": row.class_name,
        "metric": row.metric,
        "mean": mean,
        "95 % interval": show_interval(row),
        "std": std,
        "median": median,
        "cases": f"{counted} of {row.cases}" if row.undefined else str(row.cases),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _exact(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return str(int(value)) if name in PIXEL_COUNTS else repr(float(value))
