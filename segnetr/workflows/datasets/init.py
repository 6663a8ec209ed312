"""`segnetr data init`: write the description of a folder of images and masks."""

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

_MAX_VALUES = 8
_LICENSE_NAMES = ("licence", "license", "copying")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitOutcome:
    """Result of a survey of a folder.

    Attributes:
        file: The description that was written.
        content: Its keys and values.
        found: Findings, one line each.
        undecided: Decisions that are left to the user, one line each.
    """

    file: Path
    content: Mapping[str, Any]
    found: tuple[str, ...]
    undecided: tuple[str, ...]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the outcome as plain data."""
        return {
            "file": str(self.file),
            "description": dict(self.content),
            "found": list(self.found),
            "undecided": list(self.undecided),
        }

    def __str__(self) -> str:
        """Return the findings, the open decisions and the next command."""
        lines = [f"found: {line}" for line in self.found]
        lines += [f"to decide: {line}" for line in self.undecided]
        lines.append(f"written: {self.file}; review it, then run")
        data_dir = self.file.parent if self.file.name == DESCRIPTION else self.file
        lines.append(f"  segnetr data check --dataset folder --data-dir {data_dir}")
        return "\n".join(lines)


def init_folder(root: Path, *, out: Path | None = None, overwrite: bool = False) -> InitOutcome:
    """Survey a folder of images and masks, and write its description.

    Args:
        root: The folder. Only the description is written; no other file is changed.
        out: The description file; None: `dataset.yaml` in the folder.
        overwrite: Replace an existing description.

    Raises:
        UsageError: If the description exists, or no image has a mask.
        DataError: If the folder contains a table of pairs that cannot be read.
        WriteError: If the description cannot be written.
    """
    file = _choose_file(root, out, overwrite=overwrite)
    files = list_below(root)
    layout, cases = _find_pairs(root, files)
    complete = [case for case in cases if case.mask is not None and case.image.exists()]
    images, masks = survey_images(complete), survey_masks(complete)
    content: dict[str, Any] = {"name": root.resolve().name}
    if file.parent.resolve() != root.resolve():
        content["root"] = os.path.relpath(root.resolve(), file.parent.resolve())
    content |= layout
    content["classes"] = _name_classes(masks)
    content |= {"channels": images.channels, "spatial_dims": images.spatial_dims}
    content["license"] = "not stated"
    if out is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    outcome = InitOutcome(
        file=file,
        content=content,
        found=_list_findings(root, layout, cases, complete, images, masks),
        undecided=_list_decisions(root, cases, images, masks),
    )
    write_text_atomic(file, _write_yaml(outcome))
    return outcome


def _choose_file(root: Path, out: Path | None, *, overwrite: bool) -> Path:
    """Return the description file to write, after checking its name and its existence."""
    file = out or root / DESCRIPTION
    if file.is_dir() or (out is not None and file.suffix.lower() not in {".yaml", ".yml"}):
        raise UsageError(f"--out {file}: expected a file name, for example {file / DESCRIPTION}")
    if file.exists() and not overwrite:
        raise UsageError(f"{file} exists already; replace it with --overwrite")
    return file


def _find_pairs(root: Path, files: Sequence[str]) -> tuple[dict[str, Any], Sequence[Case]]:
    table = find_table(root)
    if table is not None:
        return {"pairs": table.name}, read_pair_table(table, root=root)
    layout = find_layout(root, files)
    if layout is None:
        raise UsageError(
            f"{root}: found {len(files)} images, but no image with a mask; put them into images/ "
            "and masks/ under equal names, or write a table pairs.csv with the columns image and "
            "mask"
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


def _list_findings(
    root: Path,
    layout: Mapping[str, Any],
    cases: Sequence[Case],
    complete: Sequence[Case],
    images: ImageFacts,
    masks: MaskFacts,
) -> tuple[str, ...]:
    pairing = layout.get("pairs") or f"{layout['images']} with {layout['masks']}"
    return (
        f"{len(complete)} images with masks ({pairing})",
        *_describe_cases(cases, complete),
        *_describe_content(images, masks),
        *(f"license file {path.name}" for path in _find_licenses(root)),
    )


def _describe_cases(cases: Sequence[Case], complete: Sequence[Case]) -> list[str]:
    """Return lines about the masks, the splits and the patients of the cases."""
    lines = []
    multiple = sum(len(case.mask_files) > 1 for case in complete)
    if multiple:
        lines.append(f"{multiple} images with several masks, which are merged")
    incomplete = len(cases) - len(complete)
    if incomplete:
        lines.append(f"{incomplete} cases without image or mask (segnetr data check lists them)")
    splits = Counter(case.split for case in complete if case.split)
    if splits:
        counts = ", ".join(f"{splits[name]} {name}" for name in SPLIT_NAMES if splits[name])
        lines.append(f"splits: {counts}")
    patients = {case.patient_id for case in complete if case.patient_id}
    if patients:
        lines.append(f"{len(patients)} patients, for example {min(patients)}")
    return lines


def _describe_content(images: ImageFacts, masks: MaskFacts) -> list[str]:
    """Return lines about the sizes of the images, the mask values and the unreadable files."""
    lines = []
    kind = "volumes" if images.spatial_dims == 3 else "images"
    if images.sizes is not None:
        low, high = (" x ".join(map(str, size)) for size in images.sizes)
        color = "gray" if images.channels == 1 else "color"
        lines.append(f"{color} {kind}, {low} to {high} ({images.sampled} of them read)")
    values = ", ".join(map(show_value, masks.values[:_MAX_VALUES]))
    more = ", ..." if len(masks.values) > _MAX_VALUES else ""
    lines.append(
        f"mask values {values}{more}: {masks.classes} classes ({masks.sampled} masks read)"
    )
    for name, count in (("images", images.unreadable), ("masks", masks.unreadable)):
        if count:
            lines.append(f"{count} unreadable {name} (segnetr data check lists them)")
    return lines


def _list_decisions(
    root: Path, cases: Sequence[Case], images: ImageFacts, masks: MaskFacts
) -> tuple[str, ...]:
    decisions = list(masks.undecided)
    decisions.append("names of the classes")
    if images.mixed:
        decisions.append("the folder contains images and volumes; describe them separately")
    if not any(case.patient_id for case in cases):
        decisions.append(
            "patients: images of one patient may be in training and test; {patient} in a pattern, "
            "or a column `patient`, puts them into one split"
        )
    if not _find_licenses(root):
        decisions.append("license")
    if max(images.sampled, masks.sampled) == SAMPLE:
        decisions.append(f"only {SAMPLE} files were read; segnetr data check reads all of them")
    return tuple(decisions)


def _find_licenses(root: Path) -> list[Path]:
    return [
        path
        for path in sorted(root.iterdir())
        if path.is_file() and path.stem.lower().startswith(_LICENSE_NAMES)
    ]


def _write_yaml(outcome: InitOutcome) -> str:
    lines = ["# Written by `segnetr data init`; edit as needed. See docs/datasets.md."]
    lines += [f"# found: {line}" for line in outcome.found]
    lines += [f"# to decide: {line}" for line in outcome.undecided]
    body = yaml.safe_dump(dict(outcome.content), sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, body])
