"""Ultrasound in the layout of TN-SCUI 2020: `image/`, `mask/` and a table of benign and malignant.

TN-SCUI 2020 unpacks to `tnscui2020_train/{image,mask}/<n>.PNG` with a table `ID,CATE`; the public
conversion of DDTI by the challenge's winners has the same layout, `1_or_data/{image,mask}/<n>.PNG`
and `category.csv`. Both are read here. Further folders of that conversion are not.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.datasets.root import find_dataset_root, list_files
from segnetr.data.readers.image_file import IMAGE_SUFFIXES
from segnetr.errors import DataError, UsageError

CATEGORIES = {"0": "benign", "1": "malignant"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UltrasoundLayout:
    """One data set of this layout and what a person needs to get it.

    Attributes:
        title: The name for people.
        home: Usual name of the folder that holds `image` and `mask`.
        source: Official address.
        license: License of the data.
        download_size: Size, for people.
    """

    title: str
    home: str
    source: str
    license: str
    download_size: str


def read_tnscui(root: Path, *, layout: UltrasoundLayout) -> list[Case]:
    """Read `image/`, `mask/` and the table of categories beside or above them.

    Every image and every mask becomes a case or a part of one, so that an audit finds those
    without a partner; so does every row of the table, so that it finds missing images.

    Args:
        root: The folder that holds `image` and `mask`, or the one above it.
        layout: The data set.

    Returns:
        The cases, sorted by id; `extra["stratum"]` is "benign" or "malignant" where a table says.

    Raises:
        UsageError: If the folders are not there or empty.
        DataError: If there are several tables, or one cannot be read.
    """
    expected = (
        f"{layout.home}/image and {layout.home}/mask"
        f" ({layout.source}, {layout.download_size}, license: {layout.license})"
    )
    home = find_dataset_root(root, holds=_holds_both, title=layout.title, expected=expected)
    images, masks = _index(home / "image"), _index(home / "mask")
    if not images and not masks:
        raise UsageError(f"{home}: image and mask hold no image; expected {expected}")
    categories = _find_categories((home, home.parent))
    names = sorted({*images, *masks, *categories})
    make = partial(_make_cases, home=home, images=images, masks=masks, categories=categories)
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
    home: Path,
    images: Mapping[str, list[Path]],
    masks: Mapping[str, list[Path]],
    categories: Mapping[str, str],
) -> list[Case]:
    """Make one case; several where several images share the name, which the audit refuses."""
    facts = {}
    if name in categories:
        facts = {"category": categories[name], "stratum": categories[name]}
    if name not in masks:
        facts["expected_mask"] = str(home / "mask" / f"{name}.PNG")
    first: list[Path | None] = [*masks.get(name, [None])]
    return [
        Case(case_id=name, image=image, mask=mask, extra=facts)
        for image in images.get(name, [home / "image" / f"{name}.PNG"])
        for mask in first
    ]


def _find_categories(folders: tuple[Path, ...]) -> dict[str, str]:
    """Read the one table that has the columns ID and CATE alone; no table, no categories."""
    tables = [
        path
        for folder in folders
        for path in list_files(folder)
        if path.suffix.lower() == ".csv" and _read_header(path) == ["ID", "CATE"]
    ]
    if len(tables) > 1:
        names = ", ".join(str(path) for path in tables)
        raise DataError(f"{len(tables)} tables of categories ({names}); leave one of them")
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
            if category not in CATEGORIES:
                raise DataError(f"{table}: CATE of {name} is {category!r}; 0 and 1 are known")
            if stem in categories:
                raise DataError(f"{table}: {name} stands there twice")
            categories[stem] = CATEGORIES[category]
    return categories


TNSCUI = UltrasoundLayout(
    title="TN-SCUI 2020",
    home="tnscui2020_train",
    source="https://tn-scui2020.grand-challenge.org/",
    license="for registered participants; may not be passed on",
    download_size="3644 images, size not published",
)

DDTI = UltrasoundLayout(
    title="DDTI (converted by the winners of TN-SCUI 2020)",
    home="1_or_data",
    source="https://github.com/WAMAWAMA/TNSCUI2020-Seg-Rank1st",
    license="none stated that grants redistribution; see http://cimalab.intec.co",
    download_size="637 images, size not published",
)
