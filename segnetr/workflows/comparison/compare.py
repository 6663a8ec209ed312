"""`segnetr compare`: compare the scores of several runs, with a test of each difference."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.errors import UsageError
from segnetr.metrics import MEAN
from segnetr.metrics.case_values import pair_cases
from segnetr.metrics.significance import correct_holm, measure_difference
from segnetr.outputs.charts.dot_plot import Dot, DotChart
from segnetr.outputs.reports.comparison_report import ComparisonReport, write_comparison_report
from segnetr.outputs.tables.comparison import (
    IDENTICAL,
    LEVEL,
    ComparisonRow,
    comparison_csv,
    comparison_text,
)
from segnetr.progress import Progress
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import write_json, write_text_atomic
from segnetr.workflows.comparison.figures import draw_differences
from segnetr.workflows.comparison.runs import ComparedRun, differing_settings, read_runs

# One overlap metric and two boundary metrics; more tests would weaken each other.
_DEFAULT_METRICS = ("dice", "hd95", "nsd")
_MOST_CHARTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions:
    """Options of a comparison.

    Attributes:
        metrics: Full names, or names without the unit, such as "hd95"; none: Dice, HD95 and NSD.
        by_class: Also compare each class, not only the mean over classes.
        dataset: Compare the scores on this other dataset.
        split_name: Compare the scores on this split.
        data_dir: Folder of the data, for the images; None: the folder recorded in each run.
        device: Device on which the images are predicted.
    """

    metrics: Sequence[str] = ()
    by_class: bool = False
    dataset: str | None = None
    split_name: str | None = None
    data_dir: Path | None = None
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOutcome:
    """The result of a comparison.

    Attributes:
        folder: Folder of compare.html, compare.csv and compare.json.
        rows: One for each pair of runs, metric and class.
        notes: Warnings for the reader.
    """

    folder: Path
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the rows as plain data."""
        return {
            "folder": str(self.folder),
            "page": str(self.folder / "compare.html"),
            "comparisons": [dict(row.to_dict()) for row in self.rows],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        """Return the rows as a table for the terminal."""
        lines = [comparison_text(self.rows), ""]
        if all(row.verdict == IDENTICAL for row in self.rows):
            lines.append("no difference: every case has the same scores")
        lines += [f"note:   {note}" for note in self.notes]
        return "\n".join([*lines, f"page:   {self.folder / 'compare.html'}"])


def compare(
    paths: Sequence[Path], options: CompareOptions, *, out: Path, progress: Progress
) -> CompareOutcome:
    """Compare each pair of runs on the cases on which all were scored.

    Args:
        paths: Folders of at least two runs.
        options: Metrics, classes and data.
        out: Folder for compare.html, compare.csv and compare.json.
        progress: Progress display.

    Raises:
        UsageError: If the runs cannot be compared, or a metric is unknown.
        WriteError: If the results cannot be written.
    """
    runs = read_runs(paths, dataset=options.dataset, split_name=options.split_name)
    metrics = _choose_metrics(runs[0], options.metrics)
    rows = _compare_all(runs, metrics, by_class=options.by_class)
    with as_write_error(out):
        out.mkdir(parents=True, exist_ok=True)
    figures, missing = draw_differences(
        runs,
        metrics[0],
        options.dataset,
        options.data_dir,
        device=options.device,
        progress=progress,
    )
    notes = [*_list_notes(runs, rows), *missing]
    outcome = CompareOutcome(folder=out, rows=tuple(rows), notes=tuple(notes))
    write_text_atomic(out / "compare.csv", comparison_csv(rows))
    write_json(out / "compare.json", outcome.to_dict())
    report = ComparisonReport(
        title=f"{len(runs)} runs compared",
        subtitle=f"{runs[0].title}: {', '.join(run.name for run in runs)}",
        notes=notes,
        rows=rows,
        charts=_draw_charts(runs, metrics[0]),
        figures=figures,
        settings=differing_settings(runs),
        facts={run.name: _describe(run) for run in runs},
    )
    write_comparison_report(out / "compare.html", report)
    return outcome


def _choose_metrics(run: ComparedRun, wanted: Sequence[str]) -> list[str]:
    known = run.metrics
    chosen: list[str] = []
    for name in wanted or _DEFAULT_METRICS:
        exact = [metric for metric in known if metric == name]
        found = exact or [metric for metric in known if metric.startswith(f"{name}_")]
        if not found:
            raise UsageError(f"--metric {name}: these runs have {', '.join(known)}")
        chosen.append(found[0])
    return list(dict.fromkeys(chosen))


def _compare_all(
    runs: Sequence[ComparedRun], metrics: Sequence[str], *, by_class: bool
) -> list[ComparisonRow]:
    rows: list[ComparisonRow] = []
    settings = runs[0].config.evaluate
    # All runs were scored on the same cases, so one list of patients is valid for all.
    patients = next((run.patients for run in runs if run.patients is not None), {})
    for first, second in itertools.combinations(runs, 2):
        for metric in metrics:
            pairs = pair_cases(first.table, second.table, metric=metric)
            overall = MEAN if MEAN in pairs else next(iter(pairs))
            for name in pairs if by_class else [overall]:
                ours, theirs = pairs[name]
                if not ours:
                    continue  # undefined everywhere: empty in ground truth and both predictions
                result = measure_difference(
                    ours,
                    theirs,
                    patients=patients,
                    bootstrap=settings.bootstrap,
                    seed=settings.seed,
                )
                rows.append(
                    ComparisonRow(
                        first=first.name,
                        second=second.name,
                        class_name=name,
                        metric=metric,
                        result=result,
                        p_corrected=1.0,
                    )
                )
    if not rows:
        raise UsageError(
            f"{', '.join(metrics)}: undefined in every case of all runs (empty ground truth and "
            "predictions); compare --metric dice"
        )
    corrected = correct_holm([row.result.p_value for row in rows])
    return [replace(row, p_corrected=p) for row, p in zip(rows, corrected, strict=True)]


def _draw_charts(runs: Sequence[ComparedRun], metric: str) -> list[DotChart]:
    charts = []
    for first, second in list(itertools.combinations(runs, 2))[:_MOST_CHARTS]:
        pairs = pair_cases(first.table, second.table, metric=metric)
        ours, theirs = pairs.get(MEAN) or next(iter(pairs.values()))
        dots = [
            Dot(name=f"{case}: {ours[case]:.3f}, {theirs[case]:.3f}", x=ours[case], y=theirs[case])
            for case in ours
        ]
        if dots:
            above = sum(dot.y > dot.x for dot in dots)
            below = sum(dot.y < dot.x for dot in dots)
            charts.append(
                DotChart(
                    title=f"{metric} of each case",
                    x_label=first.name,
                    y_label=second.name,
                    dots=dots,
                    diagonal=True,
                    words=f"{above} of {len(dots)} cases are higher in {second.name}, {below} in "
                    f"{first.name}",
                )
            )
    return charts


def _list_notes(runs: Sequence[ComparedRun], rows: Sequence[ComparisonRow]) -> list[str]:
    notes = _list_power_notes(rows)
    notes += [note for run in runs for note in run.notes]
    if len({run.tta for run in runs if run.tta}) > 1:
        settings = ", ".join(f"{run.name} {run.tta or 'not known'}" for run in runs)
        notes.append(f"the masks were predicted with different --tta ({settings})")
    if all(run.patients is None for run in runs):
        notes.append(
            "these scores do not say which cases are of one patient, so each case counts as a "
            "patient; run segnetr evaluate again if patients have several cases"
        )
    if _differ_only_in_seed(runs):
        notes.append("These runs differ only in their seed: their differences are due to chance.")
    return notes


def _list_power_notes(rows: Sequence[ComparisonRow]) -> list[str]:
    """Return a note if there are too few patients for any significant difference."""
    fewest = min(row.result.patients for row in rows)
    # The smallest possible p value: one run is better for all patients. Holm's correction
    # multiplies it by the number of comparisons.
    least = 2.0 ** (1 - fewest)
    if least * len(rows) < LEVEL:
        return []
    advice = "; compare fewer with --metric" if least < LEVEL else ""
    return [
        f"{fewest} patients are too few for the signed-rank test to decide any of {len(rows)} "
        f"comparisons at the 5 % level{advice}"
    ]


def _differ_only_in_seed(runs: Sequence[ComparedRun]) -> bool:
    """Return whether all seeds are different and all other settings are equal."""
    seeds = {run.config.train.seed for run in runs}
    return len(seeds) == len(runs) and all(
        row["setting"] == "train.seed" for row in differing_settings(runs)
    )


def _describe(run: ComparedRun) -> str:
    return f"{run.config.model.architecture} on {run.title}; split {run.split[:16]}; {run.path}"
