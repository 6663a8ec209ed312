"""The table of all data sets: one line of data for each."""

from collections.abc import Mapping
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType

from segnetr.data.case import DatasetSpec
from segnetr.data.datasets.drawn import DRAWN_COUNTS, prepare_drawn, read_drawn
from segnetr.data.datasets.isic import ISIC_2017, ISIC_2018, read_isic
from segnetr.errors import UsageError

_LESION = ("background", "lesion")

_SPECS = (
    DatasetSpec(
        name="isic2017",
        title=ISIC_2017.title,
        read_cases=partial(read_isic, layout=ISIC_2017),
        classes=_LESION,
        in_channels=3,
        spatial_dims=2,
        counts={"train": 2000, "validation": 150, "test": 600},
        source=ISIC_2017.source,
        licence=ISIC_2017.licence,
        download_size=ISIC_2017.download_size,
    ),
    DatasetSpec(
        name="isic2018",
        title=ISIC_2018.title,
        read_cases=partial(read_isic, layout=ISIC_2018),
        classes=_LESION,
        in_channels=3,
        spatial_dims=2,
        counts={"train": 2594, "validation": 100, "test": 1000},
        source=ISIC_2018.source,
        licence=ISIC_2018.licence,
        download_size=ISIC_2018.download_size,
    ),
    DatasetSpec(
        name="drawn",
        title="Drawn dermoscopy (made here, no download)",
        read_cases=read_drawn,
        classes=_LESION,
        in_channels=3,
        spatial_dims=2,
        counts=DRAWN_COUNTS,
        source="drawn by segnetr",
        licence="CC0 1.0",
        prepare=prepare_drawn,
    ),
)

DATASETS: Mapping[str, DatasetSpec] = MappingProxyType({spec.name: spec for spec in _SPECS})


def get_dataset(name: str) -> DatasetSpec:
    """Give the description of a data set.

    Raises:
        UsageError: If there is none of that name; the message gives the nearest.
    """
    if name in DATASETS:
        return DATASETS[name]
    nearest = get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.5)
    guess = f"; did you mean '{nearest[0]}'?" if nearest else f"; there are {', '.join(DATASETS)}"
    raise UsageError(f"unknown data set '{name}'{guess} (segnetr data list)")
