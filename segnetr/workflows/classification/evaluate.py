"""`segnetr evaluate` for a classifier: predict cases from their original files and score them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segnetr.config.load import parse_plain, to_plain
from segnetr.config.schema.classification import (
    ClassificationDataConfig,
    ClassifyConfig,
    ClassifyEvaluateConfig,
    load_classify_config,
)
from segnetr.data.classification.case import ClassificationCase, ClassificationSet, encode_labels
from segnetr.data.classification.content import hash_images
from segnetr.data.classification.loaders import load_image
from segnetr.data.classification.open import open_classification_set
from segnetr.engine.inference.classifier import Classifier
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import NothingScoredError, ReadError, UsageError
from segnetr.metrics.classification import LabeledPredictions
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
from segnetr.workflows.evaluation.evaluate import EvaluateOptions, find_scored_split
from segnetr.workflows.evaluation.scored_cases import (
    ScoredCases,
    select_other_cases,
    select_own_cases,
)
from segnetr.workflows.evaluation.seen_cases import mark_seen


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEvaluation:
    """Scores of a classifier and the folder with their files.

    Attributes:
        title: The scored cases in words.
        folder: Folder of summary.json, per_case.csv and per_class.csv.
        summary: The scores.
        unscored: Cases that could not be read.
    """

    title: str
    folder: Path
    summary: ClassSummary
    unscored: tuple[UnscoredCase, ...]

    @property
    def is_empty(self) -> bool:
        """Whether no case was scored."""
        return not self.summary.cases

    def to_dict(self) -> Mapping[str, Any]:
        """Return the scores as plain data."""
        return {
            "title": self.title,
            "folder": str(self.folder),
            "summary": to_plain(self.summary),
            "unscored": [to_plain(case) for case in self.unscored],
        }

    def __str__(self) -> str:
        """Return the scores as a table, and the cases that could not be scored."""
        lines = [f"scores: {self.title}", class_summary_table(self.summary)]
        lines += [f"not scored: {case.reason}" for case in self.unscored]
        return "\n".join([*lines, f"files:  {self.folder}"])


def evaluate_classifier(
    run_folder: Path, options: EvaluateOptions, *, out: Path | None = None, progress: Progress
) -> ClassEvaluation:
    """Predict the cases of a split or of another dataset, and score them.

    Raises:
        UsageError: If the folder is not a run, has no such split, or the other dataset has other
            classes.
        ModelFileError: If its model is missing or damaged.
    """
    run = RunDir(run_folder)
    config = load_classify_config([run.config])
    scoring: ClassifyEvaluateConfig = parse_plain(
        ClassifyEvaluateConfig, {**to_plain(config.evaluate), **options.changes}
    )
    changes = {} if options.tta is None else {"tta": options.tta}
    card, classifier = open_classifier(run_folder, changes=changes, device=options.device or "auto")
    selected = _choose_cases(run, config, options, card)
    title, folder = selected.title, out or selected.folder
    predictions, unscored = _predict_cases(
        selected.cases, classifier, card, config.data.max_pixels, progress
    )
    summary = summarize_classes(
        predictions,
        card.classes,
        bins=scoring.calibration_bins,
        bootstrap=scoring.bootstrap,
        seed=scoring.seed,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_class_cases_csv(folder / "per_case.csv", predictions, card.classes)
    write_classes_csv(folder / "per_class.csv", summary.classes)
    write_class_summary(
        folder / "summary.json",
        summary,
        title=title,
        config=scoring,
        unscored=unscored,
        seen=selected.seen,
    )
    return ClassEvaluation(title=title, folder=folder, summary=summary, unscored=tuple(unscored))


def _choose_cases(
    run: RunDir, config: ClassifyConfig, options: EvaluateOptions, card: ClassifierCard
) -> ScoredCases[ClassificationCase]:
    if options.dataset is not None:
        data = parse_plain(
            ClassificationDataConfig,
            {
                "dataset": options.dataset,
                "data_dir": options.data_dir,
                "in_channels": card.in_channels if card.in_channels in (1, 3) else None,
            },
        )
        opened = _match_classes(open_classification_set(data), card)
        selected = select_other_cases(
            run,
            opened.cases,
            options.split_name,
            name=opened.name,
            dataset=opened.title,
            root=options.data_dir,
        )
        content = hash_images(selected.cases)
        return mark_seen(run, selected, content, name=opened.name, root=options.data_dir or Path())
    data = config.data
    if options.data_dir is not None:
        data = replace(data, data_dir=options.data_dir)
    split = find_scored_split(run, options.split_name)
    opened = _match_classes(open_classification_set(data), card)
    return select_own_cases(
        run,
        opened.cases,
        split,
        dataset=opened.title,
        root=data.data_dir,
        is_default=options.split_name is None,
    )


def _match_classes(opened: ClassificationSet, card: ClassifierCard) -> ClassificationSet:
    """Map the labels of a dataset to the class indices of the model.

    Raises:
        UsageError: If the model does not have the classes, channels or kind of labels of the
            dataset.
    """
    unknown = [name for name in opened.classes if name not in card.classes]
    if unknown:
        raise UsageError(
            f"{opened.title} has the class {unknown[0]!r}, which the model does not know; it "
            f"knows {', '.join(card.classes[:20])}"
        )
    if (opened.kind == "multi") != card.multi_label or opened.in_channels != card.in_channels:
        raise UsageError(
            f"{opened.title} has {opened.in_channels} channel(s) and {opened.kind} labels; the "
            f"model takes {card.in_channels} and {'multi' if card.multi_label else 'single'}"
        )
    indices = [card.classes.index(name) for name in opened.classes]
    cases = tuple(
        replace(case, labels=tuple(sorted(indices[label] for label in case.labels)))
        for case in opened.cases
    )
    return replace(opened, classes=card.classes, cases=cases)


def _predict_cases(
    cases: Sequence[ClassificationCase],
    classifier: Classifier,
    card: ClassifierCard,
    max_pixels: int,
    progress: Progress,
) -> tuple[LabeledPredictions, list[UnscoredCase]]:
    """Return the predictions with their ground truth, and the cases that could not be read."""
    scored: list[ClassificationCase] = []
    probabilities = []
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
                    scored.append(case)
            if images:
                probabilities.append(classifier.estimate(images))
            advance(min(start + classifier.batch_size, len(cases)), len(cases))
    if not scored:
        raise NothingScoredError(f"no case could be read: {unscored[0].reason}")
    predictions = LabeledPredictions(
        case_ids=tuple(case.case_id for case in scored),
        probabilities=np.concatenate(probabilities),
        # As 0 and 1, (N, K), for one label as for several.
        ground_truth=encode_labels(scored, classes=card.num_classes, kind="multi"),
        multi_label=card.multi_label,
        groups=tuple(case.patient_id or "" for case in scored),
    )
    return predictions, unscored
