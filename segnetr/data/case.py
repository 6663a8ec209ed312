"""Cases, dataset descriptions, splits and batches: the types that all data code shares.

This module imports neither torch nor MONAI, so that decoding processes start quickly.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NotRequired, Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ClassValues, ImageFile
from segnetr.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image or volume with its annotations.

    Attributes:
        case_id: Unique within the dataset. The file's stem if the dataset has no other id.
        image: The image file, in its original format.
        mask: The ground truth, or None if there is none.
        more_masks: Further mask files of the same image, for datasets with one file per object.
            The ground truth is the union of all of them.
        label: Class index for classification, or None.
        patient_id: Cases of one patient stay in one split. None if the case stands for itself.
        split: The official split of this case, or None if the dataset has none.
        extra: Additional metadata by name. A split is stratified by "stratum".
    """

    case_id: str
    image: Path
    mask: Path | None = None
    more_masks: tuple[Path, ...] = ()
    label: int | None = None
    patient_id: str | None = None
    split: SplitName | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """All mask files. Empty without ground truth."""
        return () if self.mask is None else (self.mask, *self.more_masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """Description of a dataset: where it comes from and how its original layout is read.

    Each reader module defines its own, and `segnetr.data.datasets.registry` lists them.

    Attributes:
        name: Name on the command line.
        title: Display name.
        read_cases: Reads the unpacked original folders below a root and returns the cases, sorted
            by id. Raises `UsageError` if an expected folder is missing.
        classes: Class names, background first. Mask value i is class i unless `mask_values` is
            set.
        in_channels: Channels of images: 3 for RGB, 1 for grayscale. Modalities of volumes.
        spatial_dims: 2 for images, 3 for volumes.
        counts: Official number of cases per split. All cases count as "train" if there is no
            official split.
        source: Official address.
        license: License of the data.
        download_size: Size of the official archives as text. Empty if nothing is downloaded.
        prepare: Generates the dataset below a root. None for datasets that are downloaded.
        describe: Completes the description from the files below a root, for datasets whose classes
            or channels depend on the folder. None if they are fixed.
        mask_values: The mask values of each class. None: class indices, or 0 and the highest value
            if there are two classes.
    """

    name: str
    title: str
    read_cases: Callable[[Path], list[Case]]
    classes: tuple[str, ...]
    in_channels: int
    spatial_dims: Literal[2, 3]
    counts: Mapping[SplitName, int]
    source: str
    license: str
    download_size: str = ""
    prepare: Callable[[Path], None] | None = None
    describe: Callable[[Path], "DatasetSpec"] | None = None
    mask_values: ClassValues | None = None

    @property
    def volume_channels(self) -> int:
        """Values per voxel. 1 for images."""
        return self.in_channels if self.spatial_dims == 3 else 1


def find_dataset_root(
    root: Path, *, holds: Callable[[Path], bool], title: str, expected: str
) -> Path:
    """Return the folder that contains a dataset: the root, or one of its subfolders.

    Args:
        root: The folder that the user named.
        holds: Returns whether a folder contains the dataset.
        title: Display name of the dataset.
        expected: The expected content and its source, for messages.

    Raises:
        UsageError: If the root is missing or a file, or if no folder or several folders contain
            the dataset.
    """
    _check_is_folder(root, expected)
    if holds(root):
        return root
    below = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    found = [path for path in below if holds(path)]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UsageError(f"{root}: {len(found)} subfolders contain {title} ({names}); name one")
    if not found:
        raise UsageError(f"{root}: no {title} in it or in a subfolder; expected {expected}")
    return found[0]


def _check_is_folder(root: Path, expected: str) -> None:
    """Raise UsageError if the root of a dataset is missing or a file."""
    if not root.exists():
        raise UsageError(f"{root}: no such folder; expected {expected} in it")
    if not root.is_dir():
        raise UsageError(f"{root}: is a file; name the folder that contains {expected}")


def list_files(folder: Path) -> list[Path]:
    """List the entries of a folder by name, without hidden files (such as macOS' `._` files)."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]


class Splittable(Protocol):
    """The fields of a case that a split depends on."""

    @property
    def case_id(self) -> str:
        """Unique within the dataset."""
        ...

    @property
    def patient_id(self) -> str | None:
        """Cases of one patient stay in one split."""
        ...

    @property
    def split(self) -> SplitName | None:
        """The official split."""
        ...


AnyCase = TypeVar("AnyCase", bound=Splittable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Assignment of cases to training, validation and test.

    Attributes:
        train: Case ids, sorted.
        validation: Case ids, sorted.
        test: Case ids, sorted. May be empty.
        origin: "official" or "seeded".
        seed: Seed of a seeded split, else None.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    origin: Literal["official", "seeded"]
    seed: int | None = None

    @property
    def sha256(self) -> str:
        """Hash of the three lists. The same on every machine, and stored in every checkpoint."""
        ids = {name: list(self.ids(name)) for name in SPLIT_NAMES}
        return hashlib.sha256(json.dumps(ids, sort_keys=True).encode()).hexdigest()

    def ids(self, name: SplitName) -> tuple[str, ...]:
        """Return the case ids of one split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def select(self, cases: Sequence[AnyCase], name: SplitName) -> list[AnyCase]:
        """Return the cases of one split, ordered by id.

        Raises:
            KeyError: If an id of the split is not among the cases.
        """
        by_id = {case.case_id: case for case in cases}
        return [by_id[case_id] for case_id in self.ids(name)]


class Batch(TypedDict):
    """Output of a loader and input of a task.

    Attributes:
        image: (N, C, H, W) float32, normalized.
        case_id: N ids, for messages.
        mask: For segmentation: (N, 1, H, W) int64 class indices, the shape MONAI's losses take.
        label: For classification: (N,) int64 class indices, or (N, K) float32 for multi-label
            images and for mixed images (mixup, CutMix).
        volume: For validation on volumes: one volume as read, instead of images (N = 0).
        ground_truth: Class indices (X, Y, Z) of `volume`.
        messages: Lines for the user; the loader removes them.
    """

    image: "Tensor"
    case_id: list[str]
    mask: NotRequired["Tensor"]
    label: NotRequired["Tensor"]
    volume: NotRequired[ImageFile]
    ground_truth: NotRequired[NDArray[np.uint8]]
    messages: NotRequired[list[str]]
