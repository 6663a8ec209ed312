"""The drawn data set: images of a seeded generator, in the folder layout of ISIC 2018.

It needs no download, so that an installation can be tried and tested at once. A score on it says
that the program works; it says nothing about patients.
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

from segnetr.data.case import Case, SplitName
from segnetr.data.datasets.isic import ISIC_2018, IsicPart, read_isic
from segnetr.data.datasets.synthetic.image import draw_synthetic_image
from segnetr.errors import UsageError, WriteError

SYNTHETIC_COUNTS: Mapping[SplitName, int] = {"train": 96, "validation": 24, "test": 24}

# A change of the generator that changes a image raises this number, and the set is drawn anew.
GENERATOR_VERSION = 1
_SEED = 20240229
_FOLDER = "synthetic"
_MARKER = "drawn.json"
_PARTIAL = ".drawn-partial-"
_ABANDONED_SECONDS = 3600
# (height, width) in pixels.
_SIZES = ((192, 256), (225, 300), (240, 320), (200, 300), (300, 400), (256, 256))
_SHARES = (0.3, 0.25, 0.15, 0.15, 0.05, 0.1)


def read_synthetic(root: Path) -> list[Case]:
    """Read the drawn set below a folder, through the reader of ISIC 2018.

    Raises:
        UsageError: If the set was not drawn there yet.
    """
    folder = _locate(root)
    if not (folder / _MARKER).is_file():
        raise UsageError(
            f"{root}: the drawn set is not there; "
            f"`segnetr data check --dataset synthetic --data-dir {root}` draws it"
        )
    return read_isic(folder, layout=ISIC_2018)


def prepare_synthetic(root: Path) -> None:
    """Draw the set into `root/synthetic` unless this version of it is there already.

    The folder appears whole or not at all, also if several programs draw it at once. An earlier
    version of the set is replaced; a folder that is no drawn set is never touched.

    Raises:
        UsageError: If `root/synthetic` is there and is not a drawn set.
        WriteError: If the folder cannot be written.
    """
    folder = _locate(root)
    if _read_version(folder) == GENERATOR_VERSION:
        return
    if folder.exists() and not (folder / _MARKER).is_file():
        raise UsageError(f"{folder}: is there and is no drawn set; name another --data-dir")
    aside = folder.parent / f"{_PARTIAL}{uuid4().hex}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder.parent)
        draw_dataset(aside, counts=SYNTHETIC_COUNTS, seed=_SEED)
        _put_in_place(aside, folder)
    except OSError as error:
        raise WriteError(
            f"{folder}: the drawn set cannot be written ({error.strerror or error})"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def draw_dataset(folder: Path, *, counts: Mapping[SplitName, int], seed: int) -> None:
    """Draw images and masks into a new folder, in the layout of ISIC 2018.

    Image i of a part is a function of (seed, part, i): a larger set begins with the smaller one.

    Args:
        folder: The folder to make.
        counts: Number of images of each part; a part with 0 gets no folders.
        seed: Other seeds give other images.
    """
    folder.mkdir(parents=True)
    number = 0
    for index, part in enumerate(ISIC_2018.parts):
        for row in range(counts.get(part.name, 0)):
            rng = np.random.default_rng([seed, index, row])
            _write_pair(folder, part, f"ISIC_{index + 1}{row:06d}", rng)
            number += 1
    record = {"generator": GENERATOR_VERSION, "seed": seed, "images": number}
    with (folder / _MARKER).open("w", encoding="utf-8") as file:
        json.dump(record, file)
        file.flush()
        os.fsync(file.fileno())


def _write_pair(folder: Path, part: IsicPart, name: str, rng: np.random.Generator) -> None:
    height, width = _SIZES[rng.choice(len(_SIZES), p=_SHARES)]
    image, mask = draw_synthetic_image(rng, height, width)
    for below in (part.images, part.masks):
        (folder / below).mkdir(exist_ok=True)
    Image.fromarray(image).save(folder / part.images / f"{name}.jpg", quality=92)
    ground_truth = Image.fromarray(mask.astype(np.uint8) * 255)
    ground_truth.save(folder / part.masks / f"{name}_segmentation.png")


def _locate(root: Path) -> Path:
    """Give the folder of the set: the root itself if it is one, else the one below it."""
    return root if (root / _MARKER).is_file() else root / _FOLDER


def _read_version(folder: Path) -> int | None:
    """Give the version a set was drawn with; None where none stands complete."""
    try:
        record = json.loads((folder / _MARKER).read_text(encoding="utf-8"))
        return int(record["generator"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _put_in_place(aside: Path, folder: Path) -> None:
    """Rename a finished set into place, over an earlier version of it."""
    if folder.exists():
        old = folder.parent / f"{_PARTIAL}{uuid4().hex}"
        with contextlib.suppress(FileNotFoundError):  # another program was quicker
            folder.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    try:
        aside.rename(folder)
    except OSError:
        # Another program put the same set there in the meantime: that one serves as well.
        if _read_version(folder) != GENERATOR_VERSION:
            raise


def _remove_abandoned(parent: Path) -> None:
    """Remove what programs that were killed while drawing have left."""
    for path in parent.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
