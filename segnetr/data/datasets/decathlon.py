"""Medical Segmentation Decathlon: the folder of any task, described by its own `dataset.json`.

`TaskNN_Name/` contains `dataset.json` (labels, modalities, list of training pairs), `imagesTr/` and
`labelsTr/`. Multi-modal images have four axes, the last of which is the modality. `imagesTs/` has
no masks and is not read.

Source:
    Antonelli et al., The Medical Segmentation Decathlon, Nat. Commun. 13:4128 (2022).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from segnetr.data.case import Case, DatasetSpec
from segnetr.errors import DataError, UsageError

_SOURCE = "http://medicaldecathlon.com"
_LICENSE = "CC BY-SA 4.0"
_FILE = "dataset.json"
_MAX_BYTES = 50_000_000
_MAX_CLASSES, _MAX_CHANNELS = 256, 16
_MAX_NAME_LENGTH = 200
_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecathlonTask:
    """Content of a `dataset.json`.

    Attributes:
        folder: The task's folder.
        name: Name of the task.
        classes: Class names, background first.
        channels: Number of modalities.
        pairs: Image and mask of each training case, relative to the folder.
        license: As stated. Empty if it is not.
    """

    folder: Path
    name: str
    classes: tuple[str, ...]
    channels: int
    pairs: tuple[tuple[PurePosixPath, PurePosixPath], ...]
    license: str = ""


def describe_decathlon(root: Path, *, spec: DatasetSpec) -> DatasetSpec:
    """Complete the description with the title, classes, channels and license of a task.

    Raises:
        UsageError: If no task folder is found.
        DataError: If its `dataset.json` is invalid.
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
        root: The task's folder, or its parent if that contains one task only.

    Returns:
        The cases, sorted by id (the file's stem).

    Raises:
        UsageError: If no task folder is found.
        DataError: If its `dataset.json` is invalid.
    """
    task = read_task(_find_task(root))
    cases = [
        Case(case_id=_stem(image.name), image=task.folder / image, mask=task.folder / mask)
        for image, mask in task.pairs
    ]
    return sorted(cases, key=lambda case: (case.case_id, str(case.image)))


def read_task(folder: Path) -> DecathlonTask:
    """Read and check a task's `dataset.json`, which may come from an untrusted source.

    Raises:
        DataError: If it is not JSON, lacks a field, has labels other than 0 to K - 1, names files
            outside its folder, or states another number of cases than it lists.
    """
    path = folder / _FILE
    content = _read_json(path)
    labels = _read_names(path, content, "labels", most=_MAX_CLASSES)
    if len(labels) < 2:
        raise _issue(path, "its 'labels' name no class except the background")
    if len(set(labels)) < len(labels) or "mean" in labels:
        raise _issue(path, f"its 'labels' {', '.join(labels)} are not names of different classes")
    modalities = _read_names(path, content, "modality", most=_MAX_CHANNELS)
    entries = content.get("training")
    if not isinstance(entries, list) or not entries:
        raise _issue(path, "its 'training' lists no case")
    pairs = tuple(_read_pair(path, entry) for entry in entries if not _is_leftover(entry))
    counted = content.get("numTraining", len(pairs))
    if counted != len(pairs):
        raise _issue(path, f"'numTraining' is {counted}, but 'training' lists {len(pairs)} cases")
    # The published files spell the key "licence".
    stated_license = content.get("licence", content.get("license", ""))
    return DecathlonTask(
        folder=folder,
        name=_as_name(content.get("name")) or folder.name,
        classes=labels,
        channels=len(modalities),
        pairs=pairs,
        license=_as_name(stated_license),
    )


def _find_task(root: Path) -> Path:
    if not root.is_dir():
        raise UsageError(
            f"{root}: no such folder; name the folder of a task, such as Task04_Hippocampus"
        )
    if (root / _FILE).is_file():
        return root
    below = sorted(path.parent for path in root.glob(f"*/{_FILE}") if path.parent.name[0] != ".")
    if len(below) > 1:
        names = ", ".join(path.name for path in below)
        raise UsageError(f"{root}: contains {len(below)} tasks ({names}); name one of them")
    if not below:
        raise UsageError(
            f"{root}: no {_FILE} in it or in a subfolder; expected the folder of a task, such as "
            f"Task04_Hippocampus ({_SOURCE}, license: {_LICENSE})"
        )
    return below[0]


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise _issue(path, error.strerror or str(error)) from error
    if len(data) > _MAX_BYTES:
        raise _issue(path, f"larger than {_MAX_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _issue(path, f"not JSON ({error})") from error
    if not isinstance(content, dict):
        raise _issue(path, "not a description of a task")
    return content


def _read_names(path: Path, content: Mapping[str, Any], key: str, *, most: int) -> tuple[str, ...]:
    """Read `{"0": "background", "1": "Anterior"}` in the order of the numbers."""
    table = content.get(key)
    numbers = sorted(table, key=lambda text: (len(text), text)) if isinstance(table, dict) else []
    if not isinstance(table, dict) or not 1 <= len(numbers) <= most:
        raise _issue(path, f"its '{key}' is not a table of 1 to {most} names by number")
    if numbers != [str(number) for number in range(len(numbers))]:
        raise _issue(path, f"its '{key}' are {', '.join(numbers[:8])}, not 0 to {len(table) - 1}")
    names = tuple(_as_name(table[number]) for number in numbers)
    if not all(names):
        raise _issue(path, f"its '{key}' has an entry without a name")
    return names


def _as_name(value: Any) -> str:
    """Return a text as one printable line. Empty if the value is not a text."""
    if not isinstance(value, str):
        return ""
    line = "".join(letter if letter.isprintable() else " " for letter in value)
    return " ".join(line.split())[:_MAX_NAME_LENGTH]


def _is_leftover(entry: Any) -> bool:
    """Return whether an entry names a `._` file of macOS. Some published lists contain them."""
    image = entry.get("image") if isinstance(entry, dict) else None
    return isinstance(image, str) and PurePosixPath(image).name.startswith("._")


def _read_pair(path: Path, entry: Any) -> tuple[PurePosixPath, PurePosixPath]:
    if not isinstance(entry, dict):
        raise _issue(path, f"its 'training' contains {entry!r:.60}; expected an image and a label")
    return _read_relative_path(path, entry.get("image")), _read_relative_path(
        path, entry.get("label")
    )


def _read_relative_path(path: Path, value: Any) -> PurePosixPath:
    """Check that a path stays inside the task's folder."""
    if not isinstance(value, str) or not value.lower().endswith(_SUFFIXES):
        raise _issue(path, f"its 'training' names {value!r:.60}; expected a NIfTI file")
    path_in_task = PurePosixPath(value)
    if path_in_task.is_absolute() or ".." in path_in_task.parts or "\\" in value or "\0" in value:
        raise _issue(path, f"its 'training' names {value!r:.60}, which is outside its folder")
    return path_in_task


def _issue(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: {reason}")


def _stem(name: str) -> str:
    return next(name[: -len(end)] for end in _SUFFIXES if name.lower().endswith(end))


# `describe` completes the classes, channels and counts from the task's own `dataset.json`.
_BASE = DatasetSpec(
    name="decathlon",
    title="Medical Segmentation Decathlon",
    read_cases=read_decathlon,
    classes=("background", "foreground"),
    in_channels=1,
    spatial_dims=3,
    counts={},
    source=_SOURCE,
    license=_LICENSE,
    download_size="28 MB to 30 GB, by task",
)
SPEC = replace(_BASE, describe=partial(describe_decathlon, spec=_BASE))
