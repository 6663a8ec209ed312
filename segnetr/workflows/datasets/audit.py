"""`segnetr data audit`: duplicate images in a dataset, in two splits, or in two datasets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.renames import rename_value
from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.case import SPLIT_NAMES, Case
from segnetr.data.datasets.registry import DATASETS
from segnetr.data.duplicates.search import DuplicatePair, find_duplicates
from segnetr.data.duplicates.thumbnail import Thumbnail, collect_thumbnails, load_cached_thumbnails
from segnetr.data.readers.file_list import list_images
from segnetr.data.splits.split_cases import divide
from segnetr.errors import ReadError
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import OpenedDataset, open_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedFile:
    """An image or volume file that is compared with all others.

    Attributes:
        dataset: Name of its dataset, or the folder that contains it.
        case_id: Its case.
        path: The file.
        split: Split of the case; empty if it has none.
        volume_channels: Number of values per voxel of a volume.
    """

    dataset: str
    case_id: str
    path: Path
    split: str = ""
    volume_channels: int = 1

    @property
    def source(self) -> str:
        """The dataset and split of the file, for messages."""
        return f"{self.dataset} {self.split}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Duplicate:
    """Two files that show the same image.

    Attributes:
        first: One file.
        second: The other file.
        match: How the images match.
    """

    first: AuditedFile
    second: AuditedFile
    match: DuplicatePair

    @property
    def is_leak(self) -> bool:
        """Whether the files are in two splits or in two datasets."""
        return self.first.source != self.second.source

    def to_dict(self) -> Mapping[str, Any]:
        """Return the pair as plain data."""
        files = [
            {
                "dataset": file.dataset,
                "split": file.split,
                "case_id": file.case_id,
                "path": str(file.path),
            }
            for file in (self.first, self.second)
        ]
        return {
            "kind": self.match.kind,
            "similarity": round(self.match.likeness, 4),
            "orientation": self.match.orientation,
            "overlap": round(self.match.overlap, 4),
            "is_leak": self.is_leak,
            "files": files,
        }

    def __str__(self) -> str:
        """Return the pair as one line."""
        first, second = (f"{file.path} ({file.source})" for file in (self.first, self.second))
        upright = self.match.orientation == "upright"
        orientation = "" if upright else f", {self.match.orientation}"
        scope = "across splits" if self.is_leak else "in one split"
        match = f"{self.match.kind} {self.match.likeness:.3f}{orientation}"
        return f"duplicate {scope}: {match}: {first} and {second}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """Result of an audit.

    Attributes:
        datasets: Names of the audited datasets and folders.
        images: Number of files that were compared.
        pairs: Duplicates; those in two splits or datasets come first.
        unreadable: Reason why a file could not be compared, one line each.
    """

    datasets: tuple[str, ...]
    images: int
    pairs: tuple[Duplicate, ...]
    unreadable: tuple[str, ...]

    @property
    def leaking(self) -> tuple[Duplicate, ...]:
        """The pairs in two splits or in two datasets."""
        return tuple(pair for pair in self.pairs if pair.is_leak)

    def to_dict(self) -> Mapping[str, Any]:
        """Return the pairs as plain data."""
        return {
            "datasets": list(self.datasets),
            "images": self.images,
            "leaking_pairs": len(self.leaking),
            "pairs": [pair.to_dict() for pair in self.pairs],
            "unreadable": list(self.unreadable),
        }

    def __str__(self) -> str:
        """Return one line per pair, then the counts."""
        lines = [str(pair) for pair in self.pairs]
        lines += [f"unreadable: {reason}" for reason in self.unreadable]
        lines.append(
            f"{', '.join(self.datasets)}: {self.images} images, {len(self.leaking)} duplicate "
            f"pairs across splits or datasets, {len(self.pairs) - len(self.leaking)} in one split"
        )
        return "\n".join(lines)


def audit(config: DataConfig, against: Sequence[str], *, progress: Progress) -> AuditOutcome:
    """Compare all images of a dataset with each other and with those of other datasets.

    Args:
        config: The dataset and its split.
        against: Other datasets: `NAME=DIR` for a dataset, `DIR` for a folder of images.
        progress: Progress display.

    Raises:
        UsageError: If a dataset is unknown, or its folder does not exist.
        WriteError: If thumbnails cannot be cached.
    """
    files = list_dataset_images(open_dataset(config), config)
    for text in against:
        others = _open_other(text, config)
        if any(file.dataset == others[0].dataset for file in files):
            others = [replace(file, dataset=text) for file in others]
        files += others
    return compare_files(files, config, progress=progress)


def compare_files(
    files: Sequence[AuditedFile], config: DataConfig, *, progress: Progress
) -> AuditOutcome:
    """Compare each file with all others; files that cannot be read are listed in the outcome."""
    with progress.task("thumbnails", len(files)) as advance:
        results = collect_thumbnails(
            [file.path for file in files],
            volume_channels=[file.volume_channels for file in files],
            max_pixels=config.max_pixels,
            folder=config.cache_dir,
            workers=config.workers,
            progress=advance,
        )
    unreadable = [str(item) for item in results if isinstance(item, ReadError)]
    readable = [
        (file, item)
        for file, item in zip(files, results, strict=True)
        if isinstance(item, Thumbnail)
    ]
    with progress.task("compare", len(readable)) as advance:
        pairs = _find_pairs(readable, workers=config.workers, advance=advance)
    return AuditOutcome(
        datasets=tuple(dict.fromkeys(file.dataset for file in files)),
        images=len(readable),
        pairs=tuple(pairs),
        unreadable=tuple(unreadable),
    )


def load_cached_duplicates(
    cases: Sequence[Case], splits: Mapping[str, str], config: DataConfig
) -> list[Duplicate] | None:
    """Return the duplicates in two splits if the thumbnails of all cases are cached.

    No image is decoded, so training can call this. `segnetr data check` fills the cache.

    Args:
        cases: Cases of one dataset.
        splits: Split of each case by case ID.
        config: Location of the cache.

    Returns:
        The pairs in two splits; None if a thumbnail is missing.
    """
    chosen = [case for case in cases if case.case_id in splits]
    thumbnails = load_cached_thumbnails([case.image for case in chosen], folder=config.cache_dir)
    if thumbnails is None:
        return None
    files = [_to_file(case, config.dataset, splits) for case in chosen]
    pairs = _find_pairs(list(zip(files, thumbnails, strict=True)), workers=config.workers)
    return [pair for pair in pairs if pair.is_leak]


def list_dataset_images(opened: OpenedDataset, config: DataConfig) -> list[AuditedFile]:
    """Return the images of a dataset with the split that training would use."""
    unique = {case.case_id: case for case in opened.cases}
    split = divide(list(unique.values()), config)
    splits = {case_id: str(name) for name in SPLIT_NAMES for case_id in split.ids(name)}
    existing = {case.image: case for case in opened.cases if case.image.exists()}
    spec = opened.spec
    return [
        replace(_to_file(case, spec.name, splits), volume_channels=spec.volume_channels)
        for case in existing.values()
    ]


def _open_other(text: str, config: DataConfig) -> list[AuditedFile]:
    name, equals, folder = text.partition("=")
    name = rename_value("data.dataset", name)
    if not equals or name not in DATASETS:
        return [
            AuditedFile(dataset=Path(text).name or text, case_id=str(relative), path=path)
            for path, relative in list_images([Path(text)])
        ]
    other = replace(config, dataset=name, data_dir=Path(folder))
    return list_dataset_images(open_dataset(other), other)


def _to_file(case: Case, dataset: str, splits: Mapping[str, str]) -> AuditedFile:
    split = splits.get(case.case_id, "")
    return AuditedFile(dataset=dataset, case_id=case.case_id, path=case.image, split=split)


def _find_pairs(
    readable: Sequence[tuple[AuditedFile, Thumbnail]], *, workers: int, advance: Any = None
) -> list[Duplicate]:
    thumbnails = [thumbnail for _, thumbnail in readable]
    pairs = [
        Duplicate(first=readable[pair.first][0], second=readable[pair.second][0], match=pair)
        for pair in find_duplicates(thumbnails, workers=workers, progress=advance)
    ]
    return sorted(pairs, key=lambda pair: not pair.is_leak)
