"""`segnetr evaluate`: score a run on the original grid, or score a folder of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config, parse_plain, to_plain
from segnetr.config.schema.segmentation import EvaluateConfig, RunConfig
from segnetr.data.case import SPLIT_NAMES, Case, DatasetSpec
from segnetr.data.splits.split import read_split
from segnetr.engine.evaluation.evaluator import Evaluation, evaluate_pairs
from segnetr.engine.evaluation.pairing import Unscored, pair_folders
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError
from segnetr.outputs.tables.scores import summary_table
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import open_dataset
from segnetr.workflows.evaluation.case_figures import write_case_images
from segnetr.workflows.evaluation.case_predictions import CasePredictor
from segnetr.workflows.evaluation.evaluation_record import EvaluationRecord, write_evaluation
from segnetr.workflows.evaluation.scored_cases import (
    ScoredCases,
    select_other_cases,
    select_own_cases,
)
from segnetr.workflows.evaluation.seen_cases import hash_case_files, mark_seen
from segnetr.workflows.prediction.mask_writer import MaskWriter
from segnetr.workflows.prediction.model_folder import open_predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """Options of an evaluation.

    Attributes:
        dataset: Another dataset than that of the run; all of its cases with masks are scored.
        data_dir: Its folder; without `dataset`, another folder of the run's own dataset.
        split_name: The split to score; None: test, or validation if there is no test split.
        tta: Test-time augmentation instead of the model's own.
        device: Device of the network.
        changes: Settings that override the run's `evaluate` section.
        masks: Write the predicted masks to this folder, each named after its case.
    """

    dataset: str | None = None
    data_dir: Path | None = None
    split_name: str | None = None
    tta: str | None = None
    device: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    masks: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOutcome:
    """Scores and the folder with their files.

    Attributes:
        title: The scored cases in words.
        folder: Folder of summary.json and per_case.csv; None if nothing was written.
        evaluation: The scores.
    """

    title: str
    folder: Path | None
    evaluation: Evaluation

    @property
    def is_empty(self) -> bool:
        """Whether no case was scored."""
        return not self.evaluation.scores

    def to_dict(self) -> Mapping[str, Any]:
        """Return the summaries as plain data."""
        return {
            "title": self.title,
            "folder": None if self.folder is None else str(self.folder),
            "summaries": [to_plain(summary) for summary in self.evaluation.summaries],
            "unscored": [to_plain(case) for case in self.evaluation.unscored],
        }

    def __str__(self) -> str:
        """Return the summaries as a table, and the cases that could not be scored."""
        lines = [f"scores: {self.title}", summary_table(self.evaluation.summaries)]
        lines += [f"not scored: {case.reason}" for case in self.evaluation.unscored]
        if self.folder is not None:
            lines.append(f"files:  {self.folder}")
        return "\n".join(lines)


def evaluate_run(
    run_folder: Path, options: EvaluateOptions, *, out: Path | None = None, progress: Progress
) -> EvaluateOutcome:
    """Predict the cases of a split or of another dataset from their files, and score them.

    Raises:
        UsageError: If the folder is not a run, or has no such split.
        ModelFileError: If the files of its model are invalid.
    """
    run = RunDir(run_folder)
    if not run.config.is_file():
        raise UsageError(f"{run_folder}: not a run (config.yaml is missing)")
    config = load_config([run.config])
    scoring: EvaluateConfig = parse_plain(
        EvaluateConfig, {**to_plain(config.evaluate), **options.changes}
    )
    spec, selected = _choose_cases(run, config, options)
    cases, title, folder = selected.cases, selected.title, out or selected.folder
    changes = {} if options.tta is None else {"tta": options.tta}
    card, predictor = open_predictor(run_folder, changes=changes, device=options.device or "auto")
    _check_classes(spec, card.classes)
    model = CasePredictor(
        predictor=predictor,
        card=card,
        spec=spec,
        max_pixels=config.data.max_pixels,
        own=options.dataset is None,
    )
    unread: list[Unscored] = []
    log = EvaluationRecord()
    with progress.task("score", len(cases)) as advance:
        pairs = model.pairs(
            cases,
            log=log,
            unread=unread,
            keep=None if options.masks is None else MaskWriter(options.masks, cases),
            advance=advance,
        )
        evaluation = evaluate_pairs(
            pairs,
            classes=card.classes,
            config=scoring,
            patients={case.case_id: case.patient_id for case in cases if case.patient_id},
            max_pixels=config.data.max_pixels,
        )
    evaluation = replace(evaluation, unscored=(*unread, *evaluation.unscored))
    write_evaluation(
        folder,
        evaluation,
        title=title,
        seen=selected.seen,
        config=scoring,
        tta=options.tta or card.predict.tta,
        records=log.records,
        reliability=log.reliability(),
    )
    write_case_images(folder, cases, evaluation, model=model, qualities=log.predicted_quality)
    return EvaluateOutcome(title=title, folder=folder, evaluation=evaluation)


def evaluate_folders(
    predictions: Path,
    ground_truth: Path,
    *,
    classes: Sequence[str],
    changes: Mapping[str, Any],
    out: Path | None,
) -> EvaluateOutcome:
    """Score a folder of masks against a folder of ground-truth masks, matched by name.

    Raises:
        UsageError: If a folder is missing or nothing matches.
    """
    scoring: EvaluateConfig = parse_plain(EvaluateConfig, changes)
    pairs, unmatched = pair_folders(predictions, ground_truth)
    evaluation = evaluate_pairs(pairs, classes=classes, config=scoring)
    evaluation = replace(evaluation, unscored=(*unmatched, *evaluation.unscored))
    title = f"{predictions} against {ground_truth}"
    if out is not None:
        write_evaluation(out, evaluation, title=title, config=scoring)
    return EvaluateOutcome(title=title, folder=out, evaluation=evaluation)


def find_scored_split(run: RunDir, wanted: str | None = None) -> str | None:
    """Return the split of a run to score, or None if it has no case to score.

    Raises:
        UsageError: If the wanted split is unknown or empty.
    """
    split = read_split(run.splits)
    if wanted is not None:
        if wanted not in SPLIT_NAMES or not split.ids(wanted):
            known = [name for name in SPLIT_NAMES if split.ids(name)]
            raise UsageError(f"--split {wanted}: this run's split has {', '.join(known)}")
        return wanted
    return next((name for name in ("test", "validation") if split.ids(name)), None)


def _choose_cases(
    run: RunDir, config: RunConfig, options: EvaluateOptions
) -> tuple[DatasetSpec, ScoredCases[Case]]:
    if options.dataset is not None:
        recipe = load_config(
            flags={"data.dataset": options.dataset, "data.data_dir": options.data_dir}
        )
        opened = open_dataset(recipe.data)
        selected = select_other_cases(
            run,
            [case for case in opened.cases if case.mask is not None],
            options.split_name,
            name=opened.spec.name,
            dataset=opened.spec.title,
            root=opened.root,
        )
        content = hash_case_files(selected.cases, cache_dir=config.data.cache_dir)
        return opened.spec, mark_seen(
            run, selected, content, name=opened.spec.name, root=opened.root
        )
    data = config.data
    if options.data_dir is not None:
        data = replace(data, data_dir=options.data_dir)
    split = find_scored_split(run, options.split_name)
    opened = open_dataset(data)
    return opened.spec, select_own_cases(
        run,
        opened.cases,
        split,
        dataset=opened.spec.title,
        root=opened.root,
        is_default=options.split_name is None,
    )


def _check_classes(spec: DatasetSpec, classes: Sequence[str]) -> None:
    if len(spec.classes) != len(classes):
        raise UsageError(
            f"{spec.name} has the classes {', '.join(spec.classes)}, the model has"
            f" {', '.join(classes)}; scores need the same number of classes"
        )
