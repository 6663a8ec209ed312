"""`segnetr data audit`: images that are there twice, in two parts of a split or in two sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import SPLIT_NAMES, Case
from segnetr.data.datasets.registry import DATASETS
from segnetr.data.duplicates.search import DuplicatePair, find_duplicates
from segnetr.data.duplicates.thumbnail import Thumbnail
from segnetr.data.duplicates.thumbnail_collection import collect_thumbnails, load_cached_thumbnails
from segnetr.data.readers.file_list import list_images
from segnetr.data.splits.split_cases import divide
from segnetr.errors import ReadError
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import OpenedDataset, open_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageArray:
    """A file that is audited.

    Attributes:
        dataset: Name of its data set, or the folder it was found in.
        case_id: Its case.
        path: The file.
        part: Its part of the split; empty where it has none.
        volume_channels: Values for each voxel where it is a volume.
    """

    dataset: str
    case_id: str
    path: Path
    part: str = ""
    volume_channels: int = 1

    def place(self) -> str:
        """Say where it belongs, for people."""
        return f"{self.dataset} {self.part}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Two files with one image.

    Attributes:
        first: The one.
        second: The other.
        alike: How they are alike.
    """

    first: ImageArray
    second: ImageArray
    duplicate: DuplicatePair

    @property
    def crosses(self) -> bool:
        """Whether they lie in two parts of a split, or in two data sets."""
        return self.first.place() != self.second.place()

    def to_dict(self) -> Mapping[str, Any]:
        """Give the pair as plain data."""
        files = [
            {"dataset": p.dataset, "part": p.part, "case_id": p.case_id, "path": str(p.path)}
            for p in (self.first, self.second)
        ]
        return {
            "kind": self.duplicate.kind,
            "likeness": round(self.duplicate.likeness, 4),
            "orientation": self.duplicate.orientation,
            "overlap": round(self.duplicate.overlap, 4),
            "crosses": self.crosses,
            "files": files,
        }

    def __str__(self) -> str:
        """Give the pair as one line."""
        where = [f"{p.path} ({p.place()})" for p in (self.first, self.second)]
        turned = (
            "" if self.duplicate.orientation == "upright" else f", {self.duplicate.orientation}"
        )
        verdict = "leak" if self.crosses else "same part"
        shown = f"{self.duplicate.kind} {self.duplicate.likeness:.3f}{turned}"
        return f"{verdict}: {shown}: {where[0]} and {where[1]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """What an audit found.

    Attributes:
        sets: Names of what was audited.
        images: Files that were compared.
        pairs: Images that are there twice, those that cross parts or sets first.
        unread: Why a file could not be compared, one line each.
    """

    sets: tuple[str, ...]
    images: int
    pairs: tuple[Leak, ...]
    unread: tuple[str, ...]

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """The pairs that cross parts of a split, or data sets."""
        return tuple(pair for pair in self.pairs if pair.crosses)

    def to_dict(self) -> Mapping[str, Any]:
        """Give the pairs as plain data."""
        return {
            "sets": list(self.sets),
            "images": self.images,
            "leaks": len(self.leaks),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "unread": list(self.unread),
        }

    def __str__(self) -> str:
        """Give a line for each pair, then the counts."""
        lines = [str(pair) for pair in self.pairs]
        lines += [f"not read: {reason}" for reason in self.unread]
        inside = len(self.pairs) - len(self.leaks)
        lines.append(
            f"{', '.join(self.sets)}: {self.images} images, {len(self.leaks)} pairs in two "
            f"parts or sets, {inside} within one"
        )
        return "\n".join(lines)


def audit(config: DataConfig, against: Sequence[str], *, progress: Progress) -> AuditOutcome:
    """Compare all images of a data set with each other and with those of further sets.

    Args:
        config: The data set, and how it would be split.
        against: Further sets: `NAME=DIR` for a data set, `DIR` for a folder of images.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If a set is unknown, or its folder is not there.
        WriteError: If thumbnails cannot be kept.
    """
    images = list_dataset_images(open_dataset(config), config)
    for text in against:
        further = _open_further(text, config)
        if any(image.dataset == further[0].dataset for image in images):
            further = [replace(image, dataset=text) for image in further]
        images += further
    return compare(images, config, progress=progress)


def compare(
    images: Sequence[ImageArray], config: DataConfig, *, progress: Progress
) -> AuditOutcome:
    """Compare images, each with all others; those that cannot be read are named."""
    with progress.task("thumbnails", len(images)) as advance:
        made = collect_thumbnails(
            [image.path for image in images],
            volume_channels=[image.volume_channels for image in images],
            max_pixels=config.max_pixels,
            folder=config.cache_dir,
            workers=config.workers,
            progress=advance,
        )
    unread = [str(item) for item in made if isinstance(item, ReadError)]
    known = [
        (image, item)
        for image, item in zip(images, made, strict=True)
        if isinstance(item, Thumbnail)
    ]
    with progress.task("compare", len(known)) as advance:
        pairs = _pair_up(known, workers=config.workers, advance=advance)
    return AuditOutcome(
        sets=tuple(dict.fromkeys(image.dataset for image in images)),
        images=len(known),
        pairs=tuple(pairs),
        unread=tuple(unread),
    )


def load_cached_leaks(
    cases: Sequence[Case], parts: Mapping[str, str], config: DataConfig
) -> list[Leak] | None:
    """Find the images in two parts of a split where all thumbnails are known already.

    Nothing is decoded, so that a training can ask: `segnetr data check` leaves them behind.

    Args:
        cases: Cases of one data set.
        parts: Part of the split by case id.
        config: Where thumbnails are kept.

    Returns:
        The pairs that lie in two parts; None: not all thumbnails are known.
    """
    chosen = [case for case in cases if case.case_id in parts]
    thumbnails = load_cached_thumbnails([case.image for case in chosen], folder=config.cache_dir)
    if thumbnails is None:
        return None
    images = [_as_image(case, config.dataset, parts) for case in chosen]
    pairs = _pair_up(list(zip(images, thumbnails, strict=True)), workers=config.workers)
    return [pair for pair in pairs if pair.crosses]


def list_dataset_images(opened: OpenedDataset, config: DataConfig) -> list[ImageArray]:
    """Give the images of a data set with the part each would be trained in."""
    unique = {case.case_id: case for case in opened.cases}
    split = divide(list(unique.values()), config)
    parts = {case_id: str(name) for name in SPLIT_NAMES for case_id in split.ids(name)}
    present = {case.image: case for case in opened.cases if case.image.exists()}
    spec = opened.spec
    return [
        replace(_as_image(case, spec.name, parts), volume_channels=spec.volume_channels)
        for case in present.values()
    ]


def _open_further(text: str, config: DataConfig) -> list[ImageArray]:
    name, equals, folder = text.partition("=")
    if not equals or name not in DATASETS:
        return [
            ImageArray(dataset=Path(text).name or text, case_id=str(relative), path=path)
            for path, relative in list_images([Path(text)])
        ]
    further = replace(config, dataset=name, data_dir=Path(folder))
    return list_dataset_images(open_dataset(further), further)


def _as_image(case: Case, dataset: str, parts: Mapping[str, str]) -> ImageArray:
    part = parts.get(case.case_id, "")
    return ImageArray(dataset=dataset, case_id=case.case_id, path=case.image, part=part)


def _pair_up(
    known: Sequence[tuple[ImageArray, Thumbnail]], *, workers: int, advance: Any = None
) -> list[Leak]:
    thumbnails = [thumbnail for _, thumbnail in known]
    found = [
        Leak(first=known[pair.first][0], second=known[pair.second][0], duplicate=pair)
        for pair in find_duplicates(thumbnails, workers=workers, progress=advance)
    ]
    return sorted(found, key=lambda pair: not pair.crosses)
