"""Cases and datasets for classification, independent of the file format."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segnetr.data.cache.arrays import CachedArray
from segnetr.data.case import SplitName
from segnetr.data.validation.audit import Issue
from segnetr.errors import DataError, UsageError

ImageSource: TypeAlias = Path | CachedArray | NDArray[Any]

LabelKind = Literal["single", "multi"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationCase:
    """One image with its labels.

    Attributes:
        case_id: Unique within the dataset.
        image: A file, its copy in the cache, or the image itself (H, W, C) uint8 if one file
            contains many images.
        labels: Indices of its classes, ascending. Exactly one for a single-label dataset, any
            number including zero for a multi-label dataset.
        patient_id: Cases of one patient, or of one lesion, stay in one split. None if the case
            stands for itself.
        split: The official split of this case, or None if the dataset has none.
    """

    case_id: str
    image: ImageSource
    labels: tuple[int, ...]
    patient_id: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationSet:
    """A dataset with its cases.

    Attributes:
        name: Name on the command line.
        title: Display name.
        classes: Class names. Label i is class i.
        kind: "single" or "multi" label.
        in_channels: Channels of the images: 3 for RGB, 1 for grayscale.
        cases: The cases of all splits.
        source: Where the data come from.
        license: License of the data, as far as it is known.
        issues: Listed cases that cannot be used, with the reason.
        facts: Additional rows of the report, by name.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    kind: LabelKind
    in_channels: int
    cases: tuple[ClassificationCase, ...]
    source: str
    license: str
    issues: tuple[Issue, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def strata(self) -> dict[str, str]:
        """Stratum by case id, so that each split gets its share of each class."""
        return {case.case_id: " ".join(map(str, case.labels)) for case in self.cases}

    @property
    def labels_sha256(self) -> str:
        """Hash of classes and labels. A run can only be resumed with the same labels."""
        labels = sorted((case.case_id, case.labels) for case in self.cases)
        return hashlib.sha256(json.dumps([self.classes, labels]).encode()).hexdigest()


def encode_labels(
    cases: Sequence[ClassificationCase], *, classes: int, kind: LabelKind
) -> NDArray[np.int64]:
    """Return labels as an array: indices (N,) for single labels, 0 and 1 (N, K) for multi-label."""
    if kind == "single":
        return np.array([case.labels[0] for case in cases], dtype=np.int64)
    table = np.zeros((len(cases), classes), dtype=np.int64)
    for row, case in enumerate(cases):
        table[row, list(case.labels)] = 1
    return table


def count_labels(cases: Sequence[ClassificationCase], *, classes: int) -> NDArray[np.int64]:
    """Count the cases of each class, (K,)."""
    labels = [label for case in cases for label in case.labels]
    return np.bincount(np.array(labels, dtype=np.int64), minlength=classes)


def check_classes(opened: ClassificationSet, root: Path) -> None:
    """Check that a dataset is usable for training.

    Raises:
        UsageError: If there is no case.
        DataError: If there is only one class, a class has no case, or a label is out of range.
    """
    if not opened.cases:
        raise UsageError(f"{root}: contains no labeled image of {opened.title}")
    for case in opened.cases:
        if any(not 0 <= label < len(opened.classes) for label in case.labels):
            raise DataError(
                f"{root}: case {case.case_id} has the label {max(case.labels)}, but there are "
                f"{len(opened.classes)} classes, 0 to {len(opened.classes) - 1}"
            )
    counts = count_labels(opened.cases, classes=len(opened.classes))
    if opened.kind == "single" and len(opened.classes) < 2:
        raise DataError(
            f"{root}: all cases have the class {opened.classes[0]!r}; two classes are needed"
        )
    empty = [name for name, count in zip(opened.classes, counts, strict=True) if count == 0]
    if empty:
        raise DataError(
            f"{root}: no case of the class {', '.join(map(repr, empty))}; add images or leave "
            "the class out"
        )


def check_training_classes(
    cases: Sequence[ClassificationCase], *, classes: Sequence[str], kind: LabelKind
) -> None:
    """Check that the training split has cases of each class.

    Raises:
        DataError: If a class has no training case, or in a multi-label dataset all have it.
    """
    counts = count_labels(cases, classes=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0 or (kind == "multi" and count == len(cases)):
            which = "no" if count == 0 else "every"
            raise DataError(
                f"{which} training case has the class {name!r}; add cases, change "
                "data.split_seed, or lower data.validation_share and data.test_share"
            )
