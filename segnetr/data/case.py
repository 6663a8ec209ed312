"""What a data set is made of: cases, its description, its split, its batches."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NotRequired, Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segnetr.data.readers.image_file import ClassValues, ImageFile

SplitName = Literal["train", "validation", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One image or volume with what is known about it.

    Attributes:
        case_id: Unique within the data set; the file's stem where the data set has no other id.
        image: The image file, in its original format.
        mask: The ground truth, or None where there is none.
        more_masks: Further files of the same ground truth, where each object has one of its own:
            what is
            marked in any of them is marked.
        label: Class index for classification, or None.
        patient_id: Cases of one patient stay in one part of a split; None: the case stands alone.
        split: The official part this case belongs to, or None where the data set has none.
        extra: Further facts by name, as the data set gives them; "stratum" is the word by which a
            split is stratified.
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
        """All files of the ground truth; none where there is no ground truth."""
        return () if self.mask is None else (self.mask, *self.more_masks)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSpec:
    """A data set as data: where it comes from and how its original layout is read.

    Attributes:
        name: The name on the command line.
        title: The name for people.
        read_cases: Reads the unpacked original folders below a root into cases, sorted by id.
            Raises `UsageError` where an expected folder is missing.
        classes: Class names, background first; mask value i is class i unless `mask_values` is
            given.
        in_channels: Channels of the images, 3 for RGB, 1 for gray; of volumes, the modalities.
        spatial_dims: 2 for images, 3 for volumes.
        counts: Official number of cases by part of the split; all under train where there is none.
        source: Official address.
        license: License of the data.
        download_size: Size of the official archives, for people; empty where nothing is fetched.
        prepare: Writes the data set below a root where it is ours to make; None for real ones.
        describe: Completes the description by what lies below a root, where classes or channels
            are the folder's to say; None where they are fixed.
        mask_values: Which values in a mask file stand for which class; None: class indices, or 0
            and the highest value where there are two classes.
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
        """Values for each voxel of a volume."""
        return self.in_channels if self.spatial_dims == 3 else 1


class Splittable(Protocol):
    """What a split knows of a case."""

    @property
    def case_id(self) -> str:
        """Unique within the data set."""
        ...

    @property
    def patient_id(self) -> str | None:
        """Cases of one patient stay together."""
        ...

    @property
    def split(self) -> SplitName | None:
        """The official part."""
        ...


AnyCase = TypeVar("AnyCase", bound=Splittable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which case belongs to which part.

    Attributes:
        train: Case ids, sorted.
        validation: Case ids, sorted.
        test: Case ids, sorted; may be empty.
        origin: "official", or "seeded" with the seed that made it.
        seed: The seed of a seeded split, else None.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    origin: Literal["official", "seeded"]
    seed: int | None = None

    @property
    def sha256(self) -> str:
        """Hash of the three lists, the same on every machine; it stands in every checkpoint."""
        parts = {name: list(self.ids(name)) for name in SPLIT_NAMES}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def ids(self, name: SplitName) -> tuple[str, ...]:
        """Give the case ids of one part."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def select(self, cases: Sequence[AnyCase], name: SplitName) -> list[AnyCase]:
        """Give the cases of one part, in the order of their ids.

        Raises:
            KeyError: If an id of the split is not among the cases.
        """
        by_id = {case.case_id: case for case in cases}
        return [by_id[case_id] for case_id in self.ids(name)]


class Batch(TypedDict):
    """What a loader gives and a task takes.

    Attributes:
        image: (N, C, H, W) float32, normalized.
        case_id: N ids, for messages.
        mask: For segmentation: (N, 1, H, W) int64 class indices, the shape MONAI's losses take.
        label: For classification: (N,) int64 class indices; or (N, K) float32, where a image has
            several labels, or parts of several where images were mixed.
        volume: For validation on volumes: one volume as read, in place of images (N = 0).
        ground_truth: Its class indices (X, Y, Z).
    """

    image: Tensor
    case_id: list[str]
    mask: NotRequired[Tensor]
    label: NotRequired[Tensor]
    volume: NotRequired[ImageFile]
    ground_truth: NotRequired[NDArray[np.uint8]]
