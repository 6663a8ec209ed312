"""What a data set for classification is made of, whatever format it came in."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import SplitName
from segnetr.data.validation.audit import Issue
from segnetr.errors import DataError, UsageError

ImageArray: TypeAlias = Path | NDArray[Any]

LabelKind = Literal["single", "multi"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationCase:
    """One image with its labels.

    Attributes:
        case_id: Unique within the data set.
        image: A file, or the image itself (H, W, C) uint8 where one file holds many.
        labels: Indices of the classes that are true of it, rising: exactly one where the data set
            has one label a case, any number, also none, where it has several.
        patient_id: Cases of one patient, or of one lesion, stay in one part of a split; None: the
            case stands alone.
        split: The official part this case belongs to, or None where the data set has none.
    """

    case_id: str
    image: ImageArray
    labels: tuple[int, ...]
    patient_id: str | None = None
    split: SplitName | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassificationSet:
    """A data set with its cases.

    Attributes:
        name: The name on the command line.
        title: The name for people.
        classes: Class names; label i is class i.
        kind: Whether a case has one label or any number of them.
        in_channels: Channels of the images, 3 for RGB, 1 for gray.
        cases: All cases, official parts and all.
        source: Where it comes from.
        license: License of the data, or what is known about it.
        issues: Cases that were listed and cannot be used, with the reason.
        facts: Further facts for the report, by name.
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
        """A word for each case id, so that each part of a split gets its share of each class."""
        return {case.case_id: " ".join(map(str, case.labels)) for case in self.cases}

    @property
    def labels_sha256(self) -> str:
        """Hash of classes and labels: a run is resumed with the labels it began with."""
        labels = sorted((case.case_id, case.labels) for case in self.cases)
        return hashlib.sha256(json.dumps([self.classes, labels]).encode()).hexdigest()


def encode_labels(
    cases: Sequence[ClassificationCase], *, classes: int, kind: LabelKind
) -> NDArray[np.int64]:
    """Give labels as an array: indices (N,) for one label a case, else 0 and 1 as (N, K)."""
    if kind == "single":
        return np.array([case.labels[0] for case in cases], dtype=np.int64)
    table = np.zeros((len(cases), classes), dtype=np.int64)
    for row, case in enumerate(cases):
        table[row, list(case.labels)] = 1
    return table


def count_labels(cases: Sequence[ClassificationCase], *, classes: int) -> NDArray[np.int64]:
    """Count the cases of each class, (K,)."""
    held = [label for case in cases for label in case.labels]
    return np.bincount(np.array(held, dtype=np.int64), minlength=classes)


def check_classes(opened: ClassificationSet, root: Path) -> None:
    """Refuse a data set that nothing can be learned from.

    Raises:
        UsageError: If there is no case.
        DataError: If there is only one class, a class has no case, or a label no class.
    """
    if not opened.cases:
        raise UsageError(f"{root}: no labeled image of {opened.title} in it")
    for case in opened.cases:
        if any(not 0 <= label < len(opened.classes) for label in case.labels):
            raise DataError(
                f"{root}: case {case.case_id} has the label {max(case.labels)}, but there are "
                f"{len(opened.classes)} classes, 0 to {len(opened.classes) - 1}"
            )
    counts = count_labels(opened.cases, classes=len(opened.classes))
    if opened.kind == "single" and len(opened.classes) < 2:
        raise DataError(
            f"{root}: all cases are of one class, {opened.classes[0]!r}; a classifier needs two"
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
    """Refuse a training part that lacks a class.

    Raises:
        DataError: If no training case has a class, or in a multi-label set all have it.
    """
    counts = count_labels(cases, classes=len(classes))
    for name, count in zip(classes, counts, strict=True):
        if count == 0 or (kind == "multi" and count == len(cases)):
            which = "no" if count == 0 else "every"
            raise DataError(
                f"{which} training case is of the class {name!r}; add cases, change "
                "data.split_seed, or lower data.validation_share and data.test_share"
            )
