"""`segnetr data init`: write the description of a folder by looking at it, and touch nothing."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segnetr.data.case import SPLIT_NAMES, Case
from segnetr.data.datasets.folder.dataset import DESCRIPTION
from segnetr.data.datasets.folder.layout import find_layout, find_table
from segnetr.data.datasets.folder.pair_table import read_pair_table
from segnetr.data.datasets.folder.patterns import list_below
from segnetr.data.datasets.folder.survey import (
    SAMPLE,
    ImageFacts,
    MaskFacts,
    show_value,
    survey_images,
    survey_masks,
)
from segnetr.errors import UsageError
from segnetr.storage.manifest import write_text_atomic

_SHOWN_VALUES = 8
_LICENSE_NAMES = ("licence", "license", "copying")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOutcome:
    """What a look at a folder found.

    Attributes:
        file: The description that was written.
        content: Its keys and values.
        found: What was found, one line each.
        undecided: What a person has to decide, one line each.
    """

    file: Path
    content: Mapping[str, Any]
    found: tuple[str, ...]
    undecided: tuple[str, ...]

    def facts(self) -> Mapping[str, Any]:
        """Give the outcome as plain data."""
        return {
            "file": str(self.file),
            "description": dict(self.content),
            "found": list(self.found),
            "undecided": list(self.undecided),
        }

    def text(self) -> str:
        """Give the findings, then the open questions, then the next command."""
        lines = [f"found: {line}" for line in self.found]
        lines += [f"to decide: {line}" for line in self.undecided]
        lines.append(f"written: {self.file}; look at it, then")
        place = self.file.parent if self.file.name == DESCRIPTION else self.file
        lines.append(f"  segnetr data check --dataset folder --data-dir {place}")
        return "\n".join(lines)


def init_folder(root: Path, *, out: Path | None = None, overwrite: bool = False) -> InitOutcome:
    """Look at a folder of images and masks, and write its description.

    Args:
        root: The folder; only the description is written, nothing else is changed.
        out: The description file, where it shall not lie in the folder itself.
        overwrite: Replace a description that is there.

    Raises:
        UsageError: If the description is there already, or no image and mask belong together.
        DataError: If a table of pairs is there and cannot be read.
        WriteError: If it cannot be written.
    """
    file = out or root / DESCRIPTION
    if file.is_dir() or (out is not None and file.suffix.lower() not in {".yaml", ".yml"}):
        raise UsageError(f"--out {file}: name the description file, as {file / DESCRIPTION}")
    if file.exists() and not overwrite:
        raise UsageError(f"{file}: is there already; --overwrite writes it anew")
    files = list_below(root)
    where, cases = _find_pairs(root, files)
    whole = [case for case in cases if case.mask is not None and case.image.exists()]
    images, masks = survey_images(whole), survey_masks(whole)
    content: dict[str, Any] = {"name": root.resolve().name}
    if file.parent.resolve() != root.resolve():
        content["root"] = os.path.relpath(root.resolve(), file.parent.resolve())
    content |= where
    content["classes"] = _name_classes(masks)
    content |= {"channels": images.channels, "spatial_dims": images.spatial_dims}
    content["license"] = "not stated"
    if out is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    outcome = InitOutcome(
        file=file,
        content=content,
        found=_describe(root, where, cases, whole, images, masks),
        undecided=_list_doubts(root, cases, images, masks),
    )
    write_text_atomic(file, _write_yaml(outcome))
    return outcome


def _find_pairs(root: Path, files: Sequence[str]) -> tuple[dict[str, Any], Sequence[Case]]:
    table = find_table(root)
    if table is not None:
        return {"pairs": table.name}, read_pair_table(table, root=root)
    layout = find_layout(root, files)
    if layout is None:
        raise UsageError(
            f"{root}: {len(files)} images are there, but no two belong together as image and mask;"
            " put them into images/ and masks/ under equal names, or write a table pairs.csv with"
            " the columns image and mask"
        )
    patterns = layout.patterns
    return {"images": patterns.images, "masks": patterns.masks}, layout.cases


def _name_classes(masks: MaskFacts) -> list[str] | dict[str, Any]:
    names = ["background", "object"]
    if masks.classes > 2:
        names = ["background", *(f"class_{index}" for index in range(1, masks.classes))]
    if masks.plain:
        return names
    values = [value if isinstance(value, int) else show_value(value) for value in masks.values]
    return dict(zip(names, values, strict=True))


def _describe(
    root: Path,
    where: Mapping[str, Any],
    cases: Sequence[Case],
    whole: Sequence[Case],
    images: ImageFacts,
    masks: MaskFacts,
) -> tuple[str, ...]:
    how = where.get("pairs") or f"{where['images']} with {where['masks']}"
    lines = [f"{len(whole)} images with masks ({how})"]
    several = sum(len(case.mask_files) > 1 for case in whole)
    if several:
        lines.append(f"{several} images have several masks each; they are united")
    lost = len(cases) - len(whole)
    if lost:
        lines.append(f"{lost} cases lack an image or a mask; `segnetr data check` names them")
    parts = Counter(case.split for case in whole if case.split)
    if parts:
        shown = ", ".join(f"{parts[name]} {name}" for name in SPLIT_NAMES if parts[name])
        lines.append(f"parts: {shown}")
    patients = {case.patient_id for case in whole if case.patient_id}
    if patients:
        lines.append(f"{len(patients)} patients, as {min(patients)}")
    what = "volumes" if images.spatial_dims == 3 else "images"
    if images.sizes is not None:
        low, high = (" x ".join(map(str, size)) for size in images.sizes)
        color = "gray" if images.channels == 1 else "colors"
        lines.append(f"{what}, {color}, {low} to {high} (looked at {images.sampled})")
    values = ", ".join(map(show_value, masks.values[:_SHOWN_VALUES]))
    more = ", ..." if len(masks.values) > _SHOWN_VALUES else ""
    lines.append(f"mask values: {values}{more}: {masks.classes} classes (looked at {masks.sampled})")
    for name, count in (("images", images.unreadable), ("masks", masks.unreadable)):
        if count:
            lines.append(f"{count} {name} cannot be read; `segnetr data check` names them")
    lines += [f"a license lies in {path.name}" for path in _find_licenses(root)]
    return tuple(lines)


def _list_doubts(
    root: Path, cases: Sequence[Case], images: ImageFacts, masks: MaskFacts
) -> tuple[str, ...]:
    doubts = list(masks.undecided)
    doubts.append("names of the classes")
    if images.mixed:
        doubts.append("volumes and images stand side by side; describe them apart")
    if not any(case.patient_id for case in cases):
        doubts.append(
            "patients: images of one patient may come into training and test; {patient} in a"
            " pattern or a column `patient` keeps them together"
        )
    if not _find_licenses(root):
        doubts.append("license")
    if max(images.sampled, masks.sampled) == SAMPLE:
        doubts.append(f"only {SAMPLE} files were opened; `segnetr data check` reads all")
    return tuple(doubts)


def _find_licenses(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.iterdir())
        if path.is_file() and path.stem.lower().startswith(_LICENSE_NAMES)
    ]


def _write_yaml(outcome: InitOutcome) -> str:
    lines = ["# Written by `segnetr data init`; yours to change. See docs/datasets.md."]
    lines += [f"# found: {line}" for line in outcome.found]
    lines += [f"# to decide: {line}" for line in outcome.undecided]
    body = yaml.safe_dump(dict(outcome.content), sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, body])
