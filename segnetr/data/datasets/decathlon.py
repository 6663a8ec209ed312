"""Medical Segmentation Decathlon: any task's folder, described by its own `dataset.json`.

`TaskNN_Name/` holds `dataset.json` (labels, modalities, the list of training pairs), `imagesTr/`
and `labelsTr/`. Images of several modalities have four axes, the last one the modality. `imagesTs/`
has no masks and is not read.

Source:
    Antonelli et al., The Medical Segmentation Decathlon, Nat. Commun. 13:4128 (2022).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from segnetr.data.case import Case, DatasetSpec
from segnetr.errors import DataError, UsageError

DECATHLON_SOURCE = "http://medicaldecathlon.com"
DECATHLON_LICENSE = "CC BY-SA 4.0"

_FILE = "dataset.json"
_MOST_BYTES = 50_000_000
_MOST_CLASSES, _MOST_CHANNELS = 256, 16
_MOST_NAME = 200
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a `dataset.json` says.

    Attributes:
        folder: Where it lies.
        name: Name of the task.
        classes: Class names, background first.
        channels: Number of modalities.
        pairs: Image and mask of each training case, relative to the folder.
        license: As stated; empty where it is not.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    channels: int
    pairs: tuple[tuple[PurePosixPath, PurePosixPath], ...]
    license: str = ""


def describe_decathlon(root: Path, *, spec: DatasetSpec) -> DatasetSpec:
    """Complete the description by a task's own file: its title, classes, channels and license.

    Raises:
        UsageError: If no task's folder is found.
        DataError: If its `dataset.json` cannot be used.
    """
    task = read_task(_find_task(root))
    return replace(
        spec,
        title=f"{spec.title}: {task.name}",
        classes=task.classes,
        in_channels=task.channels,
        counts={"train": len(task.pairs)},
        license=task.license or spec.license,
        describe=None,
    )


def read_decathlon(root: Path) -> list[Case]:
    """Read the training cases of a task, each a volume with its mask.

    Args:
        root: The task's folder, or the one above it if that holds one task only.

    Returns:
        The cases, sorted by id (the file's stem).

    Raises:
        UsageError: If no task's folder is found.
        DataError: If its `dataset.json` cannot be used.
    """
    task = read_task(_find_task(root))
    cases = [
        Case(case_id=_stem(image.name), image=task.folder / image, mask=task.folder / mask)
        for image, mask in task.pairs
    ]
    return sorted(cases, key=lambda case: (case.case_id, str(case.image)))


def read_task(folder: Path) -> Task:
    """Read a task's `dataset.json`, and trust nothing in it.

    Raises:
        DataError: If it is no JSON, lacks a field, has labels that are not 0 to K - 1, names
            files outside its folder, or counts other cases than it lists.
    """
    path = folder / _FILE
    content = _read_json(path)
    labels = _read_names(path, content, "labels", most=_MOST_CLASSES)
    if len(labels) < 2:
        raise _issue(path, "its 'labels' name no class beside the background")
    if len(set(labels)) < len(labels) or "mean" in labels:
        raise _issue(path, f"its 'labels' {', '.join(labels)} are not names of different classes")
    modalities = _read_names(path, content, "modality", most=_MOST_CHANNELS)
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise _issue(path, "its 'training' lists no case")
    pairs = tuple(_read_pair(path, entry) for entry in entries if not _is_leftover(entry))
    counted = content.get("numTraining", len(pairs))
    if counted != len(pairs):
        raise _issue(path, f"'numTraining' is {counted}, but 'training' lists {len(pairs)} cases")
    # The published files spell the key "licence".
    stated_license = content.get("licence", content.get("license", ""))
    return Task(
        folder=folder,
        name=_as_name(content.get("name")) or folder.name,
        classes=labels,
        channels=len(modalities),
        pairs=pairs,
        license=_as_name(stated_license),
    )


def _find_task(root: Path) -> Path:
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; name a task's, as Task04_Hippocampus")
    if (root / _FILE).is_file():
        return root
    below = sorted(path.parent for path in root.glob(f"*/{_FILE}") if path.parent.name[0] != ".")
    if len(below) > 1:
        names = ", ".join(path.name for path in below)
        raise UsageError(f"{root}: {len(below)} tasks lie here ({names}); name one of them")
    if not below:
        raise UsageError(
            f"{root}: no {_FILE} there nor one folder below; expected a task's folder, as "
            f"Task04_Hippocampus ({DECATHLON_SOURCE}, license: {DECATHLON_LICENSE})"
        )
    return below[0]


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _issue(path, error.strerror or str(error)) from error
    if len(data) > _MOST_BYTES:
        raise _issue(path, f"larger than {_MOST_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _issue(path, f"no JSON ({error})") from error
    if not isinstance(content, dict):
        raise _issue(path, "no description of a task")
    return content


def _read_names(path: Path, content: Mapping[str, Any], key: str, *, most: int) -> tuple[str, ...]:
    """Read `{"0": "background", "1": "Anterior"}` in the order of the numbers."""
    table = content.get(key)
    numbers = sorted(table, key=lambda text: (len(text), text)) if isinstance(table, dict) else []
    if not isinstance(table, dict) or not 1 <= len(numbers) <= most:
        raise _issue(path, f"its '{key}' is no table of 1 to {most} names by number")
    if numbers != [str(number) for number in range(len(numbers))]:
        raise _issue(path, f"its '{key}' are {', '.join(numbers[:8])}, not 0 to {len(table) - 1}")
    names = tuple(_as_name(table[number]) for number in numbers)
    if not all(names):
        raise _issue(path, f"its '{key}' has an entry without a name")
    return names


def _as_name(value: Any) -> str:
    """Give a text as one printable line, or nothing."""
    if not isinstance(value, str):
        return ""
    line = "".join(letter if letter.isprintable() else " " for letter in value)
    return " ".join(line.split())[:_MOST_NAME]


def _is_leftover(entry: Any) -> bool:
    """Tell the `._` files of macOS that some lists have taken in."""
    image = entry.get("image") if isinstance(entry, dict) else None
    return isinstance(image, str) and PurePosixPath(image).name.startswith("._")


def _read_pair(path: Path, entry: Any) -> tuple[PurePosixPath, PurePosixPath]:
    if not isinstance(entry, dict):
        raise _issue(path, f"its 'training' holds {entry!r:.60} where an image and a label belong")
    return _read_place(path, entry.get("image")), _read_place(path, entry.get("label"))


def _read_place(path: Path, value: Any) -> PurePosixPath:
    """Take a file's place inside the folder, and no other."""
    if not isinstance(value, str) or not value.lower().endswith(_SUFFIXES):
        raise _issue(path, f"its 'training' names {value!r:.60} where a NIfTI file belongs")
    place = PurePosixPath(value)
    if place.is_absolute() or ".." in place.parts or "\\" in value or "\0" in value:
        raise _issue(path, f"its 'training' names {value!r:.60}, which lies outside its folder")
    return place


def _issue(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: {reason}")


def _stem(name: str) -> str:
    return next(name[: -len(end)] for end in _SUFFIXES if name.lower().endswith(end))
