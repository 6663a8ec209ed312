"""`segnetr data list`: the datasets, their sources and their downloads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from segnetr.data.case import SPLIT_NAMES, DatasetSpec
from segnetr.data.datasets.registry import DATASETS
from segnetr.data.download.sources import OFFICIAL, OfficialSource
from segnetr.workflows.datasets.prepare import LABELED
from segnetr.workflows.outcome import PlainTable


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetList:
    """The datasets, one row each.

    Attributes:
        rows: Values by column.
        archives: Official files of each dataset.
    """

    rows: tuple[Mapping[str, Any], ...]
    archives: Mapping[str, tuple[Mapping[str, Any], ...]]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the rows with the official files of each dataset."""
        return {
            "datasets": [
                {**row, "archives": list(self.archives.get(row["name"], ()))} for row in self.rows
            ]
        }

    def __str__(self) -> str:
        """Return the rows as aligned columns."""
        return str(PlainTable(name="datasets", rows=self.rows))


def list_datasets() -> DatasetList:
    """List the datasets with official counts, source, license and download."""
    rows = [_segmentation_row(spec) for spec in DATASETS.values()]
    rows += [_classification_row(name, OFFICIAL[name]) for name in LABELED]
    known = {row["name"] for row in rows}
    archives = {
        name: tuple(asdict(archive) for archive in source.archives)
        for name, source in OFFICIAL.items()
        if name in known
    }
    return DatasetList(rows=tuple(rows), archives=archives)


def _segmentation_row(spec: DatasetSpec) -> Mapping[str, Any]:
    counts = "/".join(str(spec.counts.get(name, 0)) for name in SPLIT_NAMES)
    return {
        "name": spec.name,
        "title": spec.title,
        "classes": ", ".join(spec.classes[1:]),
        "train/val/test": counts,
        "download": _describe_download(spec.name, is_synthetic=spec.prepare is not None),
        "license": spec.license,
        "source": spec.source,
    }


def _classification_row(name: str, source: OfficialSource) -> Mapping[str, Any]:
    return {
        "name": name,
        "title": f"{source.title}, for classification",
        "classes": "",
        "train/val/test": "",
        "download": _describe_download(name, is_synthetic=False),
        "license": source.license,
        "source": source.page,
    }


def _describe_download(name: str, *, is_synthetic: bool) -> str:
    if is_synthetic:
        return "not needed"
    source = OFFICIAL.get(name)
    if source is None or not source.is_public:
        return "manual"
    return source.size or "unknown size"
