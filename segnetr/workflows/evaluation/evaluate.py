"""`segnetr evaluate`: scores of a run on the original grid, or of a folder of masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config, parse_plain, plain
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
from segnetr.workflows.prediction.mask_writer import MaskWriter
from segnetr.workflows.prediction.model_folder import open_predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """What is scored, and how.

    Attributes:
        dataset: Another data set than the run's; all of its cases with masks are scored.
        data_dir: Its folder; without `dataset`, another folder of the run's own data set.
        part: Part of the split; None: the test part, or validation where there is none.
        tta: Test-time augmentation in place of the model's own.
        device: Where the network runs.
        changes: Settings put over the run's `evaluate` section.
        masks: Keep the predicted masks here, each named after its case.
    """

    dataset: str | None = None
    data_dir: Path | None = None
    part: str | None = None
    tta: str | None = None
    device: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    masks: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOutcome:
    """Scores and where they were written.

    Attributes:
        title: What was scored, for people.
        folder: Where summary.json and per_case.csv lie; None if nothing was written.
        evaluation: The scores.
    """

    title: str
    folder: Path | None
    evaluation: Evaluation

    def facts(self) -> Mapping[str, Any]:
        """Give the summaries as plain data."""
        return {
            "title": self.title,
            "folder": None if self.folder is None else str(self.folder),
            "summaries": [plain(summary) for summary in self.evaluation.summaries],
            "unscored": [plain(case) for case in self.evaluation.unscored],
        }

    def text(self) -> str:
        """Give the summaries as a table, and what could not be scored."""
        lines = [f"scores: {self.title}", summary_table(self.evaluation.summaries)]
        lines += [f"not scored: {case.reason}" for case in self.evaluation.unscored]
        if self.folder is not None:
            lines.append(f"files:  {self.folder}")
        return "\n".join(lines)


def evaluate_run(
    run_folder: Path, options: EvaluateOptions, *, out: Path | None = None, progress: Progress
) -> EvaluateOutcome:
    """Predict the cases of a part or of another data set from their files, and score them.

    Raises:
        UsageError: If the run is none, or has no such part.
        ModelFileError: If its model cannot be trusted.
    """
    run = RunDir(run_folder)
    if not run.config.is_file():
        raise UsageError(f"{run_folder}: no run (config.yaml is missing)")
    config = load_config([run.config])
    scoring: EvaluateConfig = parse_plain(
        EvaluateConfig, {**plain(config.evaluate), **options.changes}
    )
    spec, cases, title, folder = _choose_cases(run, config, options)
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
    folder = out or folder
    write_evaluation(
        folder,
        evaluation,
        title=title,
        config=scoring,
        tta=options.tta or card.predict.tta,
        records=log.records,
        reliability=log.reliability(),
    )
    write_case_images(folder, cases, evaluation, model=model, believed=log.predicted_quality)
    return EvaluateOutcome(title=title, folder=folder, evaluation=evaluation)


def evaluate_folders(
    predictions: Path,
    ground_truth: Path,
    *,
    classes: Sequence[str],
    changes: Mapping[str, Any],
    out: Path | None,
) -> EvaluateOutcome:
    """Score a folder of masks against a folder of true masks, matched by name.

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


def choose_part(run: RunDir, wanted: str | None = None) -> str | None:
    """Give the part of a run's split to score, or None where it has no case to score.

    Raises:
        UsageError: If the wanted part is unknown or empty.
    """
    split = read_split(run.splits)
    if wanted is not None:
        if wanted not in SPLIT_NAMES or not split.ids(wanted):
            has_foreground = [name for name in SPLIT_NAMES if split.ids(name)]
            raise UsageError(f"--part {wanted}: this run's split has {', '.join(has_foreground)}")
        return wanted
    return next((name for name in ("test", "validation") if split.ids(name)), None)


def _choose_cases(
    run: RunDir, config: RunConfig, options: EvaluateOptions
) -> tuple[DatasetSpec, list[Case], str, Path]:
    if options.dataset is not None:
        recipe = load_config(
            flags={"data.dataset": options.dataset, "data.data_dir": options.data_dir}
        )
        opened = open_dataset(recipe.data)
        cases = [case for case in opened.cases if case.mask is not None]
        if options.part is not None:
            cases = [case for case in cases if case.split == options.part]
        if not cases:
            raise UsageError(f"{opened.root}: no case with a mask to score")
        part = f", {options.part} part" if options.part else ""
        title = f"{opened.spec.title}{part}, {len(cases)} cases"
        return opened.spec, cases, title, run.path / f"evaluation-{opened.spec.name}"
    data = config.data
    if options.data_dir is not None:
        data = replace(data, data_dir=options.data_dir)
    name = choose_part(run, options.part)
    if name is None:
        raise UsageError(f"{run.path}: all cases were trained on; name another set by --dataset")
    opened = open_dataset(data)
    wanted = set(read_split(run.splits).ids(name))  # type: ignore[arg-type]
    cases = [case for case in opened.cases if case.case_id in wanted]
    if len(cases) != len(wanted):
        raise UsageError(
            f"{opened.root}: {len(wanted) - len(cases)} cases of the split are missing"
        )
    suffix = "" if options.part is None else f"-{name}"
    title = f"{opened.spec.title}, {name} part, {len(cases)} cases"
    return opened.spec, cases, title, run.path / f"evaluation{suffix}"


def _check_classes(spec: DatasetSpec, classes: Sequence[str]) -> None:
    if len(spec.classes) != len(classes):
        raise UsageError(
            f"{spec.name} has the classes {', '.join(spec.classes)}, the model has"
            f" {', '.join(classes)}; scores need as many in both"
        )
