"""Read CIFAR-10 and CIFAR-100 from the extracted official archives (Python version).

`cifar-10-batches-py/{data_batch_1..5,test_batch,batches.meta}` and
`cifar-100-python/{train,test,meta}`. The splits train and test are official. Validation cases are
taken from the training split.

Source:
    Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import SplitName
from segnetr.data.classification.case import ClassificationCase, ClassificationSet
from segnetr.data.classification.pickle_arrays import read_plain_pickle
from segnetr.errors import ReadError, UsageError

_SIDE = 32
_CHANNELS = 3
_SOURCE = "https://www.cs.toronto.edu/~kriz/cifar.html"
_LICENSE = "none stated by the authors"


@dataclass(frozen=True, slots=True, kw_only=True)
class CifarLayout:
    """The layout of one of the two archives.

    Attributes:
        name: The name on the command line.
        title: The displayed name.
        folder: The top folder of the archive.
        batches: Files by split.
        meta: The file with the class names.
        labels: Key of the labels in a batch.
        names: Key of the class names in `meta`.
    """

    name: str
    title: str
    folder: str
    batches: tuple[tuple[SplitName, tuple[str, ...]], ...]
    meta: str
    labels: str
    names: str


CIFAR_10 = CifarLayout(
    name="cifar10",
    title="CIFAR-10",
    folder="cifar-10-batches-py",
    batches=(
        ("train", tuple(f"data_batch_{number}" for number in range(1, 6))),
        ("test", ("test_batch",)),
    ),
    meta="batches.meta",
    labels="labels",
    names="label_names",
)
CIFAR_100 = CifarLayout(
    name="cifar100",
    title="CIFAR-100",
    folder="cifar-100-python",
    batches=(("train", ("train",)), ("test", ("test",))),
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
)


def read_cifar(root: Path, *, layout: CifarLayout) -> ClassificationSet:
    """Read an extracted archive.

    Args:
        root: The extracted folder, or its parent.
        layout: The archive.

    Raises:
        UsageError: If files are missing.
        ReadError: If a file is truncated or holds anything other than images and labels.
    """
    folder = root / layout.folder if (root / layout.folder).is_dir() else root
    wanted = [layout.meta, *(name for _, names in layout.batches for name in names)]
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise UsageError(
            f"{root}: no extracted {layout.title} ({', '.join(missing)} missing); extract the "
            f"Python version of {_SOURCE} there"
        )
    classes = _read_classes(folder / layout.meta, layout)
    cases: list[ClassificationCase] = []
    for split, names in layout.batches:
        number = 0
        for name in names:
            images, labels = _read_batch(folder / name, layout, classes=len(classes))
            for image, label in zip(images, labels, strict=True):
                case_id = f"{split}-{number:05}"
                cases.append(
                    ClassificationCase(case_id=case_id, image=image, labels=(label,), split=split)
                )
                number += 1
    return ClassificationSet(
        name=layout.name,
        title=layout.title,
        classes=classes,
        kind="single",
        in_channels=_CHANNELS,
        cases=tuple(cases),
        source=_SOURCE,
        license=_LICENSE,
    )


def _read_classes(path: Path, layout: CifarLayout) -> tuple[str, ...]:
    names = read_plain_pickle(path).get(layout.names)
    if not isinstance(names, list) or not names:
        raise ReadError(path, f"has no list {layout.names!r}")
    return tuple(n.decode("latin-1") if isinstance(n, bytes) else str(n) for n in names)


def _read_batch(
    path: Path, layout: CifarLayout, *, classes: int
) -> tuple[NDArray[np.uint8], Sequence[int]]:
    """Return images (N, 32, 32, 3) and labels of one file."""
    content = read_plain_pickle(path)
    data: Any = content.get("data")
    labels: Any = content.get(layout.labels)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * _SIDE * _SIDE:
        raise ReadError(path, f"'data' is not an array of {3 * _SIDE * _SIDE} bytes per image")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise ReadError(path, f"{layout.labels!r} is not a list of {len(data)} labels")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < classes:
            raise ReadError(path, f"image {row} has the label {label!r}, not 0 to {classes - 1}")
    # A row holds the red, the green and the blue plane.
    images = data.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), labels
