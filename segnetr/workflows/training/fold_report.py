"""Combine the folds of a cross-validation: each case is scored once, out of fold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.load import dump_config, load_config, to_plain
from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.case import Split
from segnetr.data.splits.split import read_split, write_split
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.engine.training.fold_dir import FoldDir
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import DataError
from segnetr.metrics import Score, Unscored, summarize
from segnetr.metrics.pixel_calibration import unite_reliabilities
from segnetr.outputs.models.provenance import collect_provenance
from segnetr.outputs.reports.case_section import read_case_section
from segnetr.outputs.reports.figures import Figure, read_figures
from segnetr.outputs.reports.fold_table import FoldScores, fold_rows
from segnetr.outputs.reports.run_report import RunReport, write_run_report
from segnetr.outputs.tables import reliability as reliability_file
from segnetr.outputs.tables.case_records import CASES_NAME, read_case_records
from segnetr.outputs.tables.reliability import read_reliability
from segnetr.outputs.tables.scores import (
    read_per_case_csv,
    read_summary_json,
    summary_table,
    text_table,
)
from segnetr.progress import Progress
from segnetr.storage.manifest import write_json, write_text_atomic
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.evaluation.case_figures import FOLDER
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, EvaluateOutcome, evaluate_run
from segnetr.workflows.evaluation.evaluation_record import write_evaluation
from segnetr.workflows.evaluation.report import (
    describe_data,
    describe_machine,
    list_issues,
    list_notes,
    prepare_page,
)

_SHOWN = ("best-1", "median-1", "worst-1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldOutcome:
    """Scores over all folds.

    Attributes:
        folder: Folder of the scores.
        report: The report.
        evaluation: Scores of each case by the network that was not trained on it.
        folds: The same scores fold by fold.
        test: Scores of the ensemble of all folds on the test split; None if there is none.
    """

    folder: Path
    report: Path
    evaluation: Evaluation
    folds: tuple[FoldScores, ...]
    test: EvaluateOutcome | None

    def to_dict(self) -> Mapping[str, Any]:
        """Return the scores as plain data."""
        return {
            "folder": str(self.folder),
            "report": str(self.report),
            "summaries": [to_plain(row) for row in self.evaluation.summaries],
            "folds": [to_plain(row) for row in self.folds],
            "test": None if self.test is None else self.test.to_dict(),
        }

    def __str__(self) -> str:
        """Return the table of folds, the summaries, and the paths of the files."""
        lines = [
            text_table(fold_rows(self.folds, self.evaluation.summaries)),
            "",
            "out of fold, all cases:",
            summary_table(self.evaluation.summaries),
        ]
        if self.test is not None:
            lines += ["", "ensemble of all folds:", str(self.test)]
        return "\n".join([*lines, f"files:  {self.folder}", f"report: {self.report}"])


def gather_folds(home: FoldDir, config: RunConfig, *, progress: Progress) -> FoldOutcome:
    """Combine the scores of all folds, score the test split, and write the report.

    Args:
        home: Folder of the cross-validation; every fold is finished.
        config: Settings of the folds.
        progress: Progress display.

    Raises:
        DataError: If the folds were not created from the same cases.
        ReadError: If scores of a fold cannot be read.
    """
    split = _merge_splits([read_split(home.fold(number).splits) for number in _numbers(home)])
    folds, evaluation = _read_scores(home, config)
    names = sorted({score.case_id for score in evaluation.scores})
    folders = [home.fold(number).evaluation for number in _numbers(home)]
    write_evaluation(
        home.out_of_fold,
        evaluation,
        title=f"{len(names)} cases, each predicted by the network of its validation fold",
        config=config.evaluate,
        tta=config.predict.tta,
        records=[record for folder in folders for record in read_case_records(folder / CASES_NAME)],
        reliability=unite_reliabilities(
            [read_reliability(folder / reliability_file.RELIABILITY_NAME) for folder in folders]
        ),
    )
    write_text_atomic(home.run.config, dump_config(config))
    write_split(split, home.run.splits)
    dataset = json.loads(home.fold(1).provenance.read_text(encoding="utf-8"))["dataset"]
    device = choose_device(config.train.device)
    write_json(home.run.provenance, {**collect_provenance(device=device), "dataset": dataset})
    test = None
    if split.test:
        options = EvaluateOptions(device=config.train.device)
        test = evaluate_run(home.path, options, progress=progress)
    page = report_folds(home.path)
    return FoldOutcome(
        folder=home.out_of_fold,
        report=page,
        evaluation=evaluation,
        folds=tuple(folds),
        test=test,
    )


def report_folds(folder: Path, *, out: Path | None = None) -> Path:
    """Write the report of a cross-validation from the files in its folder.

    Args:
        folder: Folder of the cross-validation; every fold is finished.
        out: Path of the page, or a folder for it; None: `report.html` in the folder.

    Returns:
        Path of the page.

    Raises:
        ModelFileError: If a fold is not finished.
        WriteError: If the page cannot be written.
    """
    home = FoldDir(folder)
    home.models()  # raises an error that names missing folds
    run, config = home.run, load_config([home.run.config])
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    scored = read_summary_json(home.out_of_fold / "summary.json")
    tested = run.evaluation / "summary.json"
    folds = [_read_fold(home, number) for number in _numbers(home)]
    facts = describe_data(config, provenance, read_split(run.splits))
    title = f"{config.model.architecture} on {provenance['dataset']['title']}"
    content = RunReport(
        title=f"{title}: {len(folds)} folds",
        subtitle=str(folder),
        facts={**facts, "Cases": _count_cases(home)},
        summaries=scored.summaries,
        scored=scored.title,
        folds=folds,
        tested=read_summary_json(tested) if tested.is_file() else None,
        figures=_choose_figures(home),
        settings_yaml=run.config.read_text(encoding="utf-8"),
        provenance=describe_machine(provenance),
        issues=list_issues(provenance, scored.unscored),
        notes=list_notes(provenance, is_scored=True),
        cases=read_case_section(home.out_of_fold),
    )
    page = prepare_page(out or run.report)
    write_run_report(page, content)
    return page


def _numbers(home: FoldDir) -> range:
    return range(1, home.count() + 1)


def _merge_splits(splits: Sequence[Split]) -> Split:
    """Return a split with all cases of the folds as training cases, and the test cases.

    Raises:
        DataError: If a case is in two folds, or the folds differ in their cases.
    """
    first = splits[0]
    cases = set(first.train) | set(first.validation)
    validated = sorted(case_id for split in splits for case_id in split.validation)
    same = all(
        set(split.train) | set(split.validation) == cases and split.test == first.test
        for split in splits
    )
    if not same or validated != sorted(cases):
        raise DataError(
            "the folds were made from different cases or settings; train them again with the "
            "same data, --folds and data.split_seed"
        )
    return replace(first, train=tuple(validated), validation=())


def _read_scores(home: FoldDir, config: RunConfig) -> tuple[list[FoldScores], Evaluation]:
    folds: list[FoldScores] = []
    scores: list[Score] = []
    unscored: list[Unscored] = []
    for number in _numbers(home):
        folder = home.fold(number).evaluation
        scores += read_per_case_csv(folder / "per_case.csv")
        unscored += read_summary_json(folder / "summary.json").unscored
        folds.append(_read_fold(home, number))
    opened = open_dataset(config.data)
    summaries = summarize(
        scores,
        patients={case.case_id: case.patient_id for case in opened.cases if case.patient_id},
        bootstrap=config.evaluate.bootstrap,
        seed=config.evaluate.seed,
    )
    return folds, Evaluation(
        scores=tuple(scores), summaries=tuple(summaries), unscored=tuple(unscored)
    )


def _read_fold(home: FoldDir, number: int) -> FoldScores:
    run = home.fold(number)
    scored = read_summary_json(run.evaluation / "summary.json")
    checkpoint, _ = run.load_checkpoint()
    return FoldScores(
        fold=number,
        cases=max((row.cases for row in scored.summaries), default=0),
        steps=checkpoint.state.step,
        summaries=scored.summaries,
    )


def _count_cases(home: FoldDir) -> str:
    split = read_split(home.run.splits)
    return f"{len(split.train)} in {home.count()} folds, {len(split.test)} test"


def _choose_figures(home: FoldDir) -> list[Figure]:
    """Return the best, the median and the worst case of each fold."""
    chosen = []
    for number in _numbers(home):
        for figure in read_figures(home.fold(number).evaluation / FOLDER):
            if figure.name in _SHOWN:
                rank, _, case_id = figure.title.partition(": ")
                title = f"{rank} of each fold: {case_id}"
                caption = f"fold {number}, {figure.caption}"
                chosen.append(replace(figure, title=title, caption=caption))
    return sorted(chosen, key=lambda figure: figure.title.partition(":")[0])
