"""Thyroid ultrasound in the layout of TN-SCUI 2020: `image/`, `mask/` and a table of categories.

TN-SCUI 2020 unpacks to `tnscui2020_train/{image,mask}/<n>.PNG` with a table `ID,CATE`. The public
conversion of DDTI by the challenge's winners has the same layout, `1_or_data/{image,mask}/<n>.PNG`
and `category.csv`. Both are read here. Further folders of that conversion are not read.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, find_dataset_root, list_files
from segnetr.data.readers.image_file import IMAGE_SUFFIXES
from segnetr.errors import DataError, UsageError

_CATEGORIES = {"0": "benign", "1": "malignant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UltrasoundLayout:
    """One dataset of this layout and the facts needed to download it.

    Attributes:
        title: Display name.
        folder: Usual name of the folder that contains `image` and `mask`.
        source: Official address.
        license: License of the data.
        download_size: Size as text.
    """

    title: str
    folder: str
    source: str
    license: str
    download_size: str


def read_tnscui(root: Path, *, layout: UltrasoundLayout) -> list[Case]:
    """Read `image/`, `mask/` and the table of categories in the same folder or its parent.

    Every image, every mask and every row of the table belongs to a case, so that an audit finds
    missing images and masks.

    Args:
        root: The folder that contains `image` and `mask`, or its parent.
        layout: The dataset.

    Returns:
        The cases, sorted by id. `extra["stratum"]` is "benign" or "malignant" if the table has the
        case.

    Raises:
        UsageError: If the folders are missing or empty.
        DataError: If there are several tables, or the table cannot be read.
    """
    expected = (
        f"{layout.folder}/image and {layout.folder}/mask"
        f" ({layout.source}, {layout.download_size}, license: {layout.license})"
    )
    data_root = find_dataset_root(root, holds=_holds_both, title=layout.title, expected=expected)
    images, masks = _index(data_root / "image"), _index(data_root / "mask")
    if not images and not masks:
        raise UsageError(f"{data_root}: image and mask contain no image; expected {expected}")
    categories = _find_categories((data_root, data_root.parent))
    names = sorted({*images, *masks, *categories})
    make = partial(
        _make_cases, data_root=data_root, images=images, masks=masks, categories=categories
    )
    return [case for name in names for case in make(name)]


def _holds_both(folder: Path) -> bool:
    return (folder / "image").is_dir() and (folder / "mask").is_dir()


def _index(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = {}
    for path in list_files(folder):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            files.setdefault(path.stem, []).append(path)
    return files


def _make_cases(
    name: str,
    *,
    data_root: Path,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    categories: Mapping[str, str],
) -> list[Case]:
    """Make one case, or several if several files share the name. The audit reports those."""
    extra = {}
    if name in categories:
        extra = {"category": categories[name], "stratum": categories[name]}
    if name not in masks:
        extra["expected_mask"] = str(data_root / "mask" / f"{name}.PNG")
    mask_files: list[Path | None] = [*masks.get(name, [None])]
    return [
        Case(case_id=name, image=image, mask=mask, extra=extra)
        for image in images.get(name, [data_root / "image" / f"{name}.PNG"])
        for mask in mask_files
    ]


def _find_categories(folders: tuple[Path, ...]) -> dict[str, str]:
    """Read the one table whose columns are ID and CATE. Without a table there are no categories."""
    tables = [
        path
        for folder in folders
        for path in list_files(folder)
        if path.suffix.lower() == ".csv" and _read_header(path) == ["ID", "CATE"]
    ]
    if len(tables) > 1:
        names = ", ".join(str(path) for path in tables)
        raise DataError(f"{len(tables)} tables of categories ({names}); keep only one of them")
    return _read_categories(tables[0]) if tables else {}


def _read_header(table: Path) -> list[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a table ({error})") from error
    return [name.strip() for name in header]


def _read_categories(table: Path) -> dict[str, str]:
    categories: dict[str, str] = {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, skipinitialspace=True):
            name, category = (row["ID"] or "").strip(), (row["CATE"] or "").strip()
            stem = Path(name).stem if Path(name).suffix.lower() in IMAGE_SUFFIXES else name
            if category not in _CATEGORIES:
                raise DataError(f"{table}: CATE of {name} is {category!r}; expected 0 or 1")
            if stem in categories:
                raise DataError(f"{table}: {name} is listed twice")
            categories[stem] = _CATEGORIES[category]
    return categories


def _make_spec(name: str, layout: UltrasoundLayout, count: int) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        title=layout.title,
        read_cases=partial(read_tnscui, layout=layout),
        classes=("background", "nodule"),
        in_channels=1,
        spatial_dims=2,
        counts={"train": count},
        source=layout.source,
        license=layout.license,
        download_size=layout.download_size,
    )


TNSCUI = UltrasoundLayout(
    title="TN-SCUI 2020",
    folder="tnscui2020_train",
    source="https://tn-scui2020.grand-challenge.org/",
    license="for registered participants; may not be passed on",
    download_size="3644 images, size not published",
)

DDTI = UltrasoundLayout(
    title="DDTI (converted by the winners of TN-SCUI 2020)",
    folder="1_or_data",
    source="https://github.com/WAMAWAMA/TNSCUI2020-Seg-Rank1st",
    license="none stated that grants redistribution; see http://cimalab.intec.co",
    download_size="637 images, size not published",
)

SPEC_TNSCUI = _make_spec("tnscui", TNSCUI, 3644)
SPEC_DDTI = _make_spec("ddti", DDTI, 637)
