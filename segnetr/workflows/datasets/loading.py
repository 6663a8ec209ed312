"""Open a dataset: its description, its folder, its cases."""

from dataclasses import dataclass
from pathlib import Path

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.cache.store import find_cache_folder
from segnetr.data.case import Case, DatasetSpec
from segnetr.data.datasets.registry import get_dataset
from segnetr.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDataset:
    """A dataset with its cases.

    Attributes:
        spec: Description of the dataset.
        root: Its folder.
        cases: Its cases.
    """

    spec: DatasetSpec
    root: Path
    cases: tuple[Case, ...]


def open_dataset(config: DataConfig) -> OpenedDataset:
    """Find the folder of a dataset and read its cases; synthetic datasets are created if missing.

    Raises:
        UsageError: If the name is unknown, no folder is set, or the folder has another layout.
    """
    spec = get_dataset(config.dataset)
    root = config.data_dir
    if root is None:
        if spec.prepare is None and not spec.download_size:
            raise UsageError(f"--data-dir is missing: {spec.title}")
        if spec.prepare is None:
            raise UsageError(
                f"--data-dir is missing: the folder of {spec.title}, unpacked "
                f"({spec.source}, {spec.download_size or 'size unknown'}, license: {spec.license})"
            )
        root = (config.cache_dir or find_cache_folder()) / spec.name
    if spec.prepare is not None:
        spec.prepare(root)
    if spec.describe is not None:
        spec = spec.describe(root)
    return OpenedDataset(spec=spec, root=root, cases=tuple(spec.read_cases(root)))
