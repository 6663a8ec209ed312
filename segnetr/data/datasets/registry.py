"""The table of all data sets: one line of data for each."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from segnetr.data.case import DatasetSpec
from segnetr.data.datasets.acdc import ACDC_CLASSES, ACDC_LICENSE, ACDC_SOURCE, read_acdc
from segnetr.data.datasets.busi import BUSI_LICENSE, BUSI_SIZE, BUSI_SOURCE, read_busi
from segnetr.data.datasets.decathlon import (
    DECATHLON_LICENSE,
    DECATHLON_SOURCE,
    describe_decathlon,
    read_decathlon,
)
from segnetr.data.datasets.dsb2018 import (
    DSB2018_LICENSE,
    DSB2018_SIZE,
    DSB2018_SOURCE,
    read_dsb2018,
)
from segnetr.data.datasets.folder.dataset import describe_folder, read_folder
from segnetr.data.datasets.isic import ISIC_2017, ISIC_2018, read_isic
from segnetr.data.datasets.mni import MNI_CLASSES, SLABS, prepare_mni, read_mni
from segnetr.data.datasets.ph2 import PH2_LICENSE, PH2_SIZE, PH2_SOURCE, read_ph2
from segnetr.data.datasets.synthetic.dataset import (
    SYNTHETIC_COUNTS,
    prepare_synthetic,
    read_synthetic,
)
from segnetr.data.datasets.tnscui import DDTI, TNSCUI, read_tnscui
from segnetr.errors import unknown_name

_LESION = ("background", "lesion")
_NODULE = ("background", "nodule")

# Without what a task's own `dataset.json` says: see `describe_decathlon`.
_DECATHLON = DatasetSpec(
    name="decathlon",
    title="Medical Segmentation Decathlon",
    read_cases=read_decathlon,
    classes=("background", "foreground"),
    in_channels=1,
    spatial_dims=3,
    counts={},
    source=DECATHLON_SOURCE,
    license=DECATHLON_LICENSE,
    download_size="28 MB to 30 GB, by task",
)

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
        license=ISIC_2017.license,
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
        license=ISIC_2018.license,
        download_size=ISIC_2018.download_size,
    ),
    DatasetSpec(
        name="ph2",
        title="PH2",
        read_cases=read_ph2,
        classes=_LESION,
        in_channels=3,
        spatial_dims=2,
        counts={"train": 200},
        source=PH2_SOURCE,
        license=PH2_LICENSE,
        download_size=PH2_SIZE,
    ),
    DatasetSpec(
        name="tnscui",
        title=TNSCUI.title,
        read_cases=partial(read_tnscui, layout=TNSCUI),
        classes=_NODULE,
        in_channels=1,
        spatial_dims=2,
        counts={"train": 3644},
        source=TNSCUI.source,
        license=TNSCUI.license,
        download_size=TNSCUI.download_size,
    ),
    DatasetSpec(
        name="ddti",
        title=DDTI.title,
        read_cases=partial(read_tnscui, layout=DDTI),
        classes=_NODULE,
        in_channels=1,
        spatial_dims=2,
        counts={"train": 637},
        source=DDTI.source,
        license=DDTI.license,
        download_size=DDTI.download_size,
    ),
    DatasetSpec(
        name="busi",
        title="BUSI",
        read_cases=read_busi,
        classes=_LESION,
        in_channels=1,
        spatial_dims=2,
        counts={"train": 780},
        source=BUSI_SOURCE,
        license=BUSI_LICENSE,
        download_size=BUSI_SIZE,
    ),
    DatasetSpec(
        name="dsb2018",
        title="Data Science Bowl 2018, stage 1",
        read_cases=read_dsb2018,
        classes=("background", "nucleus"),
        in_channels=3,
        spatial_dims=2,
        counts={"train": 670},
        source=DSB2018_SOURCE,
        license=DSB2018_LICENSE,
        download_size=DSB2018_SIZE,
    ),
    DatasetSpec(
        name="folder",
        title="Your own folder, described in dataset.yaml (segnetr data init)",
        read_cases=read_folder,
        classes=("background", "as described"),
        in_channels=3,
        spatial_dims=2,
        counts={},
        source="yours",
        license="as described",
        describe=describe_folder,
    ),
    DatasetSpec(
        name="acdc",
        title="ACDC (cardiac MR)",
        read_cases=read_acdc,
        classes=ACDC_CLASSES,
        in_channels=1,
        spatial_dims=3,
        # Frames: end of diastole and of systole of 100 and of 50 patients.
        counts={"train": 200, "test": 100},
        source=ACDC_SOURCE,
        license=ACDC_LICENSE,
        download_size="about 2 GB",
    ),
    replace(_DECATHLON, describe=partial(describe_decathlon, spec=_DECATHLON)),
    DatasetSpec(
        name="mni",
        title="MNI152 brain (in the package nilearn, no download)",
        read_cases=read_mni,
        classes=MNI_CLASSES,
        in_channels=1,
        spatial_dims=3,
        counts=dict(Counter(slab.part for slab in SLABS)),
        source="https://nilearn.github.io",
        license="BSD-3-Clause (nilearn); ICBM's own permissive terms (template)",
        prepare=prepare_mni,
    ),
    DatasetSpec(
        name="synthetic",
        title="Drawn dermoscopy (made here, no download)",
        read_cases=read_synthetic,
        classes=_LESION,
        in_channels=3,
        spatial_dims=2,
        counts=SYNTHETIC_COUNTS,
        source="drawn by segnetr",
        license="CC0 1.0",
        prepare=prepare_synthetic,
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
    raise unknown_name("dataset", name, DATASETS, see="segnetr data list")
