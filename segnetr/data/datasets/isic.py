"""Lesion segmentation data of the ISIC challenges 2017 and 2018, as their archives unpack.

The data folder is the folder that contains the official folders, or its parent. Some programs
unpack an archive into a folder of the same name inside the official folder; that is read as well.
No other folders are searched.

Each official split (training, validation, test) has one folder of images and one of masks. A split
may be absent, but if one of its two folders exists, the other must exist too. The image folders
also contain other files, which are skipped: superpixels, tables, licenses, macOS `._` files.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, SplitName, find_dataset_root, list_files
from segnetr.errors import ReadError, UsageError

_IMAGE_SUFFIXES = {".jpg", ".jpeg"}
_MASK_SUFFIX = ".png"
_MASK_ENDING = "_segmentation"  # compared in lower case: ISIC 2016 writes it with a capital letter
_SUPERPIXEL_ENDING = "_superpixels"
_SOURCE = "https://challenge.isic-archive.com/data/"


@dataclass(frozen=True, slots=True, kw_only=True)
class IsicSplit:
    """The folders of one official split.

    Attributes:
        name: Name of the split.
        images: Folder of the images.
        masks: Folder of the masks.
        diagnoses: Table of diagnoses next to the folders. Empty if the challenge has none.
    """

    name: SplitName
    images: str
    masks: str
    diagnoses: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IsicLayout:
    """The folders of one challenge and the facts needed to download them.

    Attributes:
        title: Display name.
        splits: The official splits.
        source: Official address.
        license: License of the data.
        download_size: Size of the archives as text.
    """

    title: str
    splits: tuple[IsicSplit, ...]
    source: str
    license: str
    download_size: str

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of all official folders."""
        return tuple(name for split in self.splits for name in (split.images, split.masks))


def read_isic(root: Path, *, layout: IsicLayout) -> list[Case]:
    """Read the official folders of one challenge.

    Every image becomes a case. If its mask is missing, `mask` is None and `extra["expected_mask"]`
    names the missing file. A mask without an image becomes a case whose `image` is the missing
    file. Two files with the same id become two cases. An audit of the cases therefore finds all of
    these issues.

    Args:
        root: The folder that contains the official folders, or its parent.
        layout: The challenge.

    Returns:
        The cases, sorted by id.

    Raises:
        UsageError: If no official folder is found, or only one of a split's two folders exists.
        ReadError: If the table of diagnoses cannot be read.
    """
    try:
        data_root = find_dataset_root(
            root,
            holds=partial(_holds_official, layout=layout),
            title=layout.title,
            expected=f"{layout.splits[0].images} and {layout.splits[0].masks} ({_advice(layout)})",
        )
        cases = [case for split in layout.splits for case in _read_split(data_root, split, layout)]
    except OSError as error:
        raise UsageError(f"{error.filename or root}: {error.strerror or error}") from error
    if not cases:
        raise UsageError(
            f"{data_root}: the {layout.title} folders contain no *.jpg image and no mask; unpack "
            f"the archives so that the files are directly in them ({_advice(layout)})"
        )
    return sorted(cases, key=lambda case: (case.case_id, str(case.image), str(case.mask)))


def _holds_official(folder: Path, layout: IsicLayout) -> bool:
    return any((folder / name).is_dir() for name in layout.folders)


def _advice(layout: IsicLayout) -> str:
    return f"{layout.source}, {layout.download_size}, license: {layout.license}"


def _read_split(data_root: Path, split: IsicSplit, layout: IsicLayout) -> list[Case]:
    images = _find_folder(data_root, split.images)
    masks = _find_folder(data_root, split.masks)
    if not images.is_dir() and not masks.is_dir():
        return []
    for folder, other in ((images, masks), (masks, images)):
        if not folder.is_dir():
            raise UsageError(
                f"{folder}: this folder is missing, but {other.name} exists; download it "
                f"({_advice(layout)}), or move {other.name} away to leave this split out"
            )
    diagnoses = _read_diagnoses(data_root / split.diagnoses) if split.diagnoses else {}
    return list(_pair_files(split.name, images, masks, diagnoses))


def _find_folder(data_root: Path, name: str) -> Path:
    nested = data_root / name / name
    return nested if nested.is_dir() else data_root / name


def _pair_files(
    split: SplitName, images: Path, masks: Path, diagnoses: Mapping[str, str]
) -> Iterable[Case]:
    """Yield a case for each image and each mask of a split, paired by the image's stem."""
    masks_by_id: dict[str, list[Path]] = {}
    for path in list_files(masks):
        if path.suffix.lower() == _MASK_SUFFIX and path.stem.lower().endswith(_MASK_ENDING):
            masks_by_id.setdefault(path.stem[: -len(_MASK_ENDING)], []).append(path)
    seen = set()
    for image in list_files(images):
        if image.suffix.lower() not in _IMAGE_SUFFIXES or image.stem.endswith(_SUPERPIXEL_ENDING):
            continue
        seen.add(image.stem)
        extra = {"diagnosis": diagnoses[image.stem]} if image.stem in diagnoses else {}
        if image.stem not in masks_by_id:
            extra["expected_mask"] = str(masks / f"{image.stem}{_MASK_ENDING}{_MASK_SUFFIX}")
        for mask in masks_by_id.get(image.stem, [None]):
            yield Case(case_id=image.stem, image=image, mask=mask, split=split, extra=extra)
    for case_id in masks_by_id.keys() - seen:
        for mask in masks_by_id[case_id]:
            missing = images / f"{case_id}.jpg"
            yield Case(case_id=case_id, image=missing, mask=mask, split=split)


def _read_diagnoses(table: Path) -> dict[str, str]:
    """Read `image_id,melanoma,seborrheic_keratosis`. If both are 0.0, the lesion is a nevus."""
    if not table.is_file():
        return {}
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            return {row["image_id"]: _name_diagnosis(row) for row in csv.DictReader(file)}
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise ReadError(
            table, f"not a table of image_id, melanoma, seborrheic_keratosis ({error!r})"
        ) from error


def _name_diagnosis(row: Mapping[str, str]) -> str:
    if float(row["melanoma"]):
        return "melanoma"
    return "seborrheic keratosis" if float(row["seborrheic_keratosis"]) else "nevus"


def _make_spec(name: str, layout: IsicLayout, counts: Mapping[SplitName, int]) -> DatasetSpec:
    return DatasetSpec(
        name=name,
        title=layout.title,
        read_cases=partial(read_isic, layout=layout),
        classes=("background", "lesion"),
        in_channels=3,
        spatial_dims=2,
        counts=counts,
        source=layout.source,
        license=layout.license,
        download_size=layout.download_size,
    )


ISIC_2017 = IsicLayout(
    title="ISIC 2017 (Part 1)",
    splits=(
        IsicSplit(
            name="train",
            images="ISIC-2017_Training_Data",
            masks="ISIC-2017_Training_Part1_GroundTruth",
            diagnoses="ISIC-2017_Training_Part3_GroundTruth.csv",
        ),
        IsicSplit(
            name="validation",
            images="ISIC-2017_Validation_Data",
            masks="ISIC-2017_Validation_Part1_GroundTruth",
            diagnoses="ISIC-2017_Validation_Part3_GroundTruth.csv",
        ),
        IsicSplit(
            name="test",
            images="ISIC-2017_Test_v2_Data",
            masks="ISIC-2017_Test_v2_Part1_GroundTruth",
            diagnoses="ISIC-2017_Test_v2_Part3_GroundTruth.csv",
        ),
    ),
    source=f"{_SOURCE}#2017",
    license="CC0 1.0, as a mirror states it; see the official page",
    download_size="about 12 GB",
)

ISIC_2018 = IsicLayout(
    title="ISIC 2018 (Task 1)",
    splits=(
        IsicSplit(
            name="train",
            images="ISIC2018_Task1-2_Training_Input",
            masks="ISIC2018_Task1_Training_GroundTruth",
        ),
        IsicSplit(
            name="validation",
            images="ISIC2018_Task1-2_Validation_Input",
            masks="ISIC2018_Task1_Validation_GroundTruth",
        ),
        IsicSplit(
            name="test",
            images="ISIC2018_Task1-2_Test_Input",
            masks="ISIC2018_Task1_Test_GroundTruth",
        ),
    ),
    source=f"{_SOURCE}#2018",
    license="CC BY-NC 4.0, as a mirror states it; see the official page and the archive's LICENSE",
    download_size="about 13 GB",
)

SPEC_2017 = _make_spec("isic2017", ISIC_2017, {"train": 2000, "validation": 150, "test": 600})
SPEC_2018 = _make_spec("isic2018", ISIC_2018, {"train": 2594, "validation": 100, "test": 1000})
