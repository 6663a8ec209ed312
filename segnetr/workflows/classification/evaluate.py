"""`segnetr evaluate` for a classifier: probabilities of a part, from the original files, scored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segnetr.config.load import parse_plain, plain
from segnetr.config.schema.classification import (
    ClassificationDataConfig,
    ClassifyConfig,
    ClassifyEvaluateConfig,
    load_classify_config,
)
from segnetr.data.classification.case import ClassificationCase, ClassificationSet, encode_labels
from segnetr.data.classification.loaders import load_image
from segnetr.data.classification.open import open_classification_set
from segnetr.data.splits.split import read_split
from segnetr.engine.inference.classifier import Classifier
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ReadError, UsageError
from segnetr.metrics.classification import Answers
from segnetr.metrics.classification_summary import ClassSummary, summarize_classes
from segnetr.outputs.models.classifier_file import ClassifierCard
from segnetr.outputs.tables.classification import (
    UnscoredCase,
    class_summary_table,
    write_class_cases_csv,
    write_class_summary,
    write_classes_csv,
)
from segnetr.progress import Progress
from segnetr.workflows.classification.network import open_classifier
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, choose_part


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEvaluation:
    """Scores of a classifier and where they were written.

    Attributes:
        title: What was scored, for people.
        folder: Where summary.json, per_case.csv and per_class.csv lie.
        summary: The scores.
        unscored: Cases that could not be read.
    """

    title: str
    folder: Path
    summary: ClassSummary
    unscored: tuple[UnscoredCase, ...]

    def to_dict(self) -> Mapping[str, Any]:
        """Give the scores as plain data."""
        return {
            "title": self.title,
            "folder": str(self.folder),
            "summary": plain(self.summary),
            "unscored": [plain(case) for case in self.unscored],
        }

    def __str__(self) -> str:
        """Give the scores as tables, and what could not be scored."""
        lines = [f"scores: {self.title}", class_summary_table(self.summary)]
        lines += [f"not scored: {case.reason}" for case in self.unscored]
        return "\n".join([*lines, f"files:  {self.folder}"])


def evaluate_classifier(
    run_folder: Path, options: EvaluateOptions, *, out: Path | None = None, progress: Progress
) -> ClassEvaluation:
    """Predict the cases of a part or of another data set, and score them.

    Raises:
        UsageError: If the run is none, has no such part, or the other data set other classes.
        ModelFileError: If its model cannot be trusted.
    """
    run = RunDir(run_folder)
    config = load_classify_config([run.config])
    scoring: ClassifyEvaluateConfig = parse_plain(
        ClassifyEvaluateConfig, {**plain(config.evaluate), **options.changes}
    )
    changes = {} if options.tta is None else {"tta": options.tta}
    card, classifier = open_classifier(run_folder, changes=changes, device=options.device or "auto")
    cases, title, folder = _choose_cases(run, config, options, card)
    answers, unscored = _answer(cases, classifier, card, config.data.max_pixels, progress)
    summary = summarize_classes(
        answers,
        card.classes,
        bins=scoring.calibration_bins,
        bootstrap=scoring.bootstrap,
        seed=scoring.seed,
    )
    folder = out or folder
    folder.mkdir(parents=True, exist_ok=True)
    write_class_cases_csv(folder / "per_case.csv", answers, card.classes)
    write_classes_csv(folder / "per_class.csv", summary.classes)
    write_class_summary(
        folder / "summary.json", summary, title=title, config=scoring, unscored=unscored
    )
    return ClassEvaluation(title=title, folder=folder, summary=summary, unscored=tuple(unscored))


def _choose_cases(
    run: RunDir, config: ClassifyConfig, options: EvaluateOptions, card: ClassifierCard
) -> tuple[list[ClassificationCase], str, Path]:
    if options.dataset is not None:
        data = parse_plain(
            ClassificationDataConfig,
            {
                "dataset": options.dataset,
                "data_dir": options.data_dir,
                "in_channels": card.in_channels if card.in_channels in (1, 3) else None,
            },
        )
        opened = _with_classes_of(open_classification_set(data), card)
        cases = [c for c in opened.cases if options.part in (None, c.split)]
        if not cases:
            raise UsageError(f"{options.data_dir}: no case in the part {options.part!r}")
        part = f", {options.part} part" if options.part else ""
        title = f"{opened.title}{part}, {len(cases)} cases"
        return cases, title, run.path / f"evaluation-{opened.name}"
    data = config.data
    if options.data_dir is not None:
        data = replace(data, data_dir=options.data_dir)
    name = choose_part(run, options.part)
    if name is None:
        raise UsageError(f"{run.path}: all cases were trained on; name another set by --dataset")
    opened = _with_classes_of(open_classification_set(data), card)
    wanted = set(read_split(run.splits).ids(name))  # type: ignore[arg-type]
    cases = [case for case in opened.cases if case.case_id in wanted]
    if len(cases) != len(wanted):
        raise UsageError(
            f"{data.data_dir}: {len(wanted) - len(cases)} cases of the split are missing"
        )
    suffix = "" if options.part is None else f"-{name}"
    title = f"{opened.title}, {name} part, {len(cases)} cases"
    return cases, title, run.path / f"evaluation{suffix}"


def _with_classes_of(opened: ClassificationSet, card: ClassifierCard) -> ClassificationSet:
    """Number the labels of a data set as the model does.

    Raises:
        UsageError: If the data set has classes, channels or a kind of labels the model has not.
    """
    foreign = [name for name in opened.classes if name not in card.classes]
    if foreign:
        raise UsageError(
            f"{opened.title} has the class {foreign[0]!r}, which the model does not know; it "
            f"knows {', '.join(card.classes[:20])}"
        )
    if (opened.kind == "multi") != card.several or opened.in_channels != card.in_channels:
        raise UsageError(
            f"{opened.title} has {opened.in_channels} channel(s) and {opened.kind} labels; the "
            f"model takes {card.in_channels} and {'multi' if card.several else 'single'}"
        )
    numbers = [card.classes.index(name) for name in opened.classes]
    cases = tuple(
        replace(case, labels=tuple(sorted(numbers[label] for label in case.labels)))
        for case in opened.cases
    )
    return replace(opened, classes=card.classes, cases=cases)


def _answer(
    cases: Sequence[ClassificationCase],
    classifier: Classifier,
    card: ClassifierCard,
    max_pixels: int,
    progress: Progress,
) -> tuple[Answers, list[UnscoredCase]]:
    read: list[ClassificationCase] = []
    found = []
    unscored: list[UnscoredCase] = []
    with progress.task("score", len(cases)) as advance:
        for start in range(0, len(cases), classifier.batch_size):
            images = []
            for case in cases[start : start + classifier.batch_size]:
                try:
                    image = load_image(case, channels=card.in_channels, max_pixels=max_pixels)
                except ReadError as error:
                    unscored.append(UnscoredCase(case_id=case.case_id, reason=str(error)))
                else:
                    images.append(classifier.prepare(image))
                    read.append(case)
            if images:
                found.append(classifier.estimate(images))
            advance(min(start + classifier.batch_size, len(cases)), len(cases))
    if not read:
        raise UsageError(f"no case could be read: {unscored[0].reason}")
    answers = Answers(
        case_ids=tuple(case.case_id for case in read),
        probabilities=np.concatenate(found),
        ground_truth=_as_table(read, card),
        several=card.several,
        groups=tuple(case.patient_id or "" for case in read),
    )
    return answers, unscored


def _as_table(cases: Sequence[ClassificationCase], card: ClassifierCard) -> "np.ndarray[Any, Any]":
    """Give the ground truth as 0 and 1, (N, K), whatever the kind of labels."""
    return encode_labels(cases, classes=card.num_classes, kind="multi")
