"""Survey a folder: dimensions and channels of its images, values of its masks.

Unreadable files are counted here and reported by `segnetr data check`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import Case
from segnetr.data.readers.image import decode_image
from segnetr.data.readers.image_file import (
    DEFAULT_MAX_PIXELS,
    FileValue,
    MaskValuesError,
)
from segnetr.data.readers.masks import (
    file_values,
    find_values,
    index_classes,
    pack_colors,
    unpack_color,
)
from segnetr.data.readers.read_files import is_volume, read_image
from segnetr.errors import ReadError

SAMPLE = 200
"""Largest number of images, and of masks, that are opened."""

_MAX_VALUES = 32
_MAX_FOREGROUND_SHARE = 0.5
_MAX_LISTED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """Properties of the images.

    Attributes:
        sampled: Number of images that were read.
        unreadable: Number of images that could not be read.
        channels: 1 if all images are gray, even if they are stored in color, else 3.
        spatial_dims: 3 if most files are volumes, else 2.
        mixed: Whether there are both volumes and images.
        sizes: Smallest and largest (height, width) or (X, Y, Z), by the number of pixels.
    """

    sampled: int
    unreadable: int
    channels: int
    spatial_dims: int
    mixed: bool
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """Properties of the masks.

    Attributes:
        sampled: Number of masks that were read.
        unreadable: Number of masks that could not be read.
        plain: Whether the values are class indices, or 0 and the highest value for two classes.
        classes: Assumed number of classes.
        values: Distinct values in ascending order. Colors if there are any.
        undecided: Questions for the user, one line each.
    """

    sampled: int
    unreadable: int
    plain: bool
    classes: int
    values: tuple[FileValue, ...]
    undecided: tuple[str, ...] = ()


def survey_images(cases: Sequence[Case]) -> ImageFacts:
    """Survey the images of up to `SAMPLE` cases, evenly spaced."""
    kinds: Counter[str] = Counter()
    sizes: list[tuple[int, ...]] = []
    colored, unreadable = False, 0
    for case in sample_evenly(cases):
        try:
            image = read_image(case.image, max_pixels=DEFAULT_MAX_PIXELS)
        except ReadError:
            unreadable += 1
            continue
        kinds[image.kind] += 1
        array = image.array
        sizes.append(array.shape[:2] if image.kind == "image" else array.shape)
        colored |= image.kind == "image" and not (array == array[..., :1]).all()
    sizes.sort(key=lambda size: (float(np.prod(size)), size))
    return ImageFacts(
        sampled=len(sizes),
        unreadable=unreadable,
        channels=3 if colored else 1,
        spatial_dims=3 if kinds["volume"] > kinds["image"] else 2,
        mixed=len(kinds) > 1,
        sizes=(sizes[0], sizes[-1]) if sizes else None,
    )


def survey_masks(cases: Sequence[Case]) -> MaskFacts:
    """Survey up to `SAMPLE` masks, evenly spaced, and propose classes."""
    files = [path for case in cases for path in case.mask_files]
    values = _MaskValues()
    for path in sample_evenly(files):
        try:
            values.add(path)
        except ReadError:
            values.unreadable += 1
    return values.conclude()


def sample_evenly(items: Sequence[Any]) -> list[Any]:
    """Return up to `SAMPLE` evenly spaced items."""
    if len(items) <= SAMPLE:
        return list(items)
    return [items[(index * len(items)) // SAMPLE] for index in range(SAMPLE)]


@dataclass(slots=True)
class _MaskValues:
    """Collects the values of masks."""

    sampled: int = 0
    unreadable: int = 0
    two_classes: bool = True
    soft: bool = False
    bright_share: list[float] = field(default_factory=list)
    grays: set[int] = field(default_factory=set)
    fractions: bool = False
    colors: set[int] = field(default_factory=set)

    def add(self, path: Path) -> None:
        """Add the values of one mask.

        Raises:
            ReadError: If it cannot be read.
        """
        if is_volume(path):
            self._add_grays(path, read_image(path, max_pixels=DEFAULT_MAX_PIXELS).array)
        else:
            image, _ = decode_image(path, max_pixels=DEFAULT_MAX_PIXELS)
            try:
                self._add_grays(path, file_values(path, image, colors=False))
            except MaskValuesError:
                packed = pack_colors(file_values(path, image, colors=True))
                self.colors.update(np.unique(packed).tolist())
        self.sampled += 1

    def conclude(self) -> MaskFacts:
        """Propose classes for the values."""
        if self.colors:
            codes = sorted(self.colors | {gray * 0x010101 for gray in self.grays})
            return self._propose(tuple(unpack_color(code) for code in codes), plain=False)
        grays = tuple(sorted(self.grays))
        if self.sampled and self.two_classes and grays != (0,):
            return self._propose(grays, plain=True, classes=2)
        return self._propose(grays, plain=grays == tuple(range(len(grays))))

    def _propose(
        self, values: tuple[FileValue, ...], *, plain: bool, classes: int | None = None
    ) -> MaskFacts:
        questions = self._list_questions()
        if classes is None and (self.fractions or not 2 <= len(values) <= _MAX_VALUES):
            plain, classes = True, 2
            found = f"the masks contain {_show(values)}" if values else "no mask could be read"
            questions = (
                f"which mask values belong to which class? {found}; two classes are assumed",
                *questions,
            )
        return MaskFacts(
            sampled=self.sampled,
            unreadable=self.unreadable,
            plain=plain,
            classes=classes or len(values),
            values=values,
            undecided=questions,
        )

    def _add_grays(self, path: Path, stored: NDArray[Any]) -> None:
        found = find_values(stored)
        self.fractions |= not bool((found == np.round(found)).all())
        self.grays.update(int(value) for value in found[:: max(1, len(found) // 300)])
        try:
            array, warnings = index_classes(path, stored, classes=2)
        except MaskValuesError:
            self.two_classes = False
        else:
            self.soft |= bool(warnings)
            self.bright_share.append(float(array.mean()))

    def _list_questions(self) -> tuple[str, ...]:
        questions = []
        if self.soft:
            questions.append("some masks have soft edges; they are thresholded at 128")
        if (
            self.two_classes
            and self.bright_share
            and np.mean(self.bright_share) > _MAX_FOREGROUND_SHARE
        ):
            share = np.mean(self.bright_share)
            questions.append(
                f"the higher value covers {share:.0%} of the masks; if it is the background,"
                " write `classes: {background: 255, object: 0}`"
            )
        return tuple(questions)


def _show(values: Sequence[FileValue]) -> str:
    listed = ", ".join(map(show_value, values[:_MAX_LISTED]))
    more = f", ... ({len(values)} or more)" if len(values) > _MAX_LISTED else ""
    return ("the value " if len(values) == 1 else "the values ") + listed + more


def show_value(value: FileValue) -> str:
    """Return a value as it is written in a description."""
    return str(value) if isinstance(value, int) else "#" + bytes(value).hex()
