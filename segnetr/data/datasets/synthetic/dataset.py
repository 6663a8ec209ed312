"""The synthetic dataset: generated dermoscopy images in the folder layout of ISIC 2018.

It needs no download, so that an installation can be tried and tested at once. A score on it shows
that the program works. It says nothing about patients.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image

from segnetr.data.case import Case, DatasetSpec, SplitName
from segnetr.data.datasets.isic import ISIC_2018, IsicSplit, read_isic
from segnetr.data.datasets.synthetic.image import draw_synthetic_image
from segnetr.errors import UsageError, WriteError

SYNTHETIC_COUNTS: Mapping[SplitName, int] = {"train": 96, "validation": 24, "test": 24}

# Increase this number when the generator changes an image. The dataset is then regenerated.
GENERATOR_VERSION = 1
_SEED = 20240229
_FOLDER = "synthetic"
_MARKER = "synthetic.json"
# Names of version 0.1. Datasets that it generated stay valid, since the images are the same.
_OLD_FOLDER = "drawn"
_OLD_MARKER = "drawn.json"
_PARTIAL = ".synthetic-partial-"
_PARTIAL_PATTERNS = (f"{_PARTIAL}*", ".drawn-partial-*")
_ABANDONED_SECONDS = 3600
# (height, width) in pixels.
_SIZES = ((192, 256), (225, 300), (240, 320), (200, 300), (300, 400), (256, 256))
_SIZE_PROBABILITIES = (0.3, 0.25, 0.15, 0.15, 0.05, 0.1)


def read_synthetic(root: Path) -> list[Case]:
    """Read the synthetic dataset below a folder with the reader of ISIC 2018.

    Raises:
        UsageError: If the dataset has not been generated yet.
    """
    folder = _locate(root)
    if _find_marker(folder) is None:
        raise UsageError(
            f"{root}: the synthetic dataset has not been generated; run "
            f"`segnetr data check --dataset synthetic --data-dir {root}`"
        )
    return read_isic(folder, layout=ISIC_2018)


def prepare_synthetic(root: Path) -> None:
    """Generate the dataset below `root/synthetic` unless this version of it exists.

    The folder appears complete or not at all, even if several processes generate it at once. An
    older version of the dataset is replaced. Any other folder is never modified.

    Raises:
        UsageError: If `root/synthetic` exists and is not a generated dataset.
        WriteError: If the folder cannot be written.
    """
    folder = _locate(root)
    if _read_version(folder) == GENERATOR_VERSION:
        return
    if folder.exists() and _find_marker(folder) is None:
        raise UsageError(
            f"{folder}: exists and is not a generated dataset; choose another --data-dir"
        )
    temporary = folder.parent / f"{_PARTIAL}{uuid4().hex}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        draw_dataset(temporary, counts=SYNTHETIC_COUNTS, seed=_SEED)
        _install(temporary, folder)
    except OSError as error:
        raise WriteError(
            f"{folder}: the synthetic dataset cannot be written ({error.strerror or error})"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_dataset(folder: Path, *, counts: Mapping[SplitName, int], seed: int) -> None:
    """Generate images and masks in a new folder, in the layout of ISIC 2018.

    Image i of a split is a function of (seed, split, i), so a larger dataset starts with the same
    images as a smaller one.

    Args:
        folder: The folder to create.
        counts: Number of images per split. A split with 0 images gets no folders.
        seed: Other seeds give other images.
    """
    folder.mkdir(parents=True)
    number = 0
    for index, split in enumerate(ISIC_2018.splits):
        for row in range(counts.get(split.name, 0)):
            rng = np.random.default_rng([seed, index, row])
            _write_pair(folder, split, f"ISIC_{index + 1}{row:06d}", rng)
            number += 1
    record = {"generator": GENERATOR_VERSION, "seed": seed, "images": number}
    with (folder / _MARKER).open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())


def _write_pair(folder: Path, split: IsicSplit, name: str, rng: np.random.Generator) -> None:
    height, width = _SIZES[rng.choice(len(_SIZES), p=_SIZE_PROBABILITIES)]
    image, mask = draw_synthetic_image(rng, height, width)
    for subfolder in (split.images, split.masks):
        (folder / subfolder).mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / split.images / f"{name}.jpg", quality=92)
    ground_truth = Image.fromarray(mask.astype(np.uint8) * 255)
    ground_truth.save(folder / split.masks / f"{name}_segmentation.png")


def _locate(root: Path) -> Path:
    """Return the dataset's folder: the root if it is one, else its subfolder."""
    if _find_marker(root) is not None:
        return root
    old, new = root / _OLD_FOLDER, root / _FOLDER
    return old if not new.exists() and _find_marker(old) is not None else new


def _find_marker(folder: Path) -> Path | None:
    """Return the generator's record in a folder, under its current or its old name."""
    markers = (folder / _MARKER, folder / _OLD_MARKER)
    return next((marker for marker in markers if marker.is_file()), None)


def _read_version(folder: Path) -> int | None:
    """Return the generator version of a complete dataset, or None."""
    marker = _find_marker(folder)
    if marker is None:
        return None
    try:
        return int(json.loads(marker.read_text(encoding="utf-8"))["generator"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _install(temporary: Path, folder: Path) -> None:
    """Rename a complete dataset to its final name, replacing an older version.

    The current version is kept: another process that installed it may already be reading it.
    """
    if _read_version(folder) == GENERATOR_VERSION:
        return
    if folder.exists():
        old = folder.parent / f"{_PARTIAL}{uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.rename(folder)
    except OSError:
        # Another process may have installed the same dataset in the meantime.
        if _read_version(folder) != GENERATOR_VERSION:
            raise


def _remove_abandoned(parent: Path) -> None:
    """Remove temporary folders of processes that were killed."""
    for path in (path for pattern in _PARTIAL_PATTERNS for path in parent.glob(pattern)):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


SPEC = DatasetSpec(
    name="synthetic",
    title="Synthetic dermoscopy (generated, no download)",
    read_cases=read_synthetic,
    classes=("background", "lesion"),
    in_channels=3,
    spatial_dims=2,
    counts=SYNTHETIC_COUNTS,
    source="generated by segnetr",
    license="CC0 1.0",
    prepare=prepare_synthetic,
)
