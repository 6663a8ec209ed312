"""What the images and masks of a folder hold: dimensions, channels, and the values of the masks.

Files are only read. A file that cannot be read is counted and left for `segnetr data check`.
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
"""Most images, and most masks, that are opened."""

_MOST_VALUES = 32
_MOSTLY = 0.5
_SHOWN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What the images are.

    Attributes:
        looked: Images that were read.
        unreadable: Images that could not be.
        channels: 1 if all are gray, whatever their files store, else 3.
        spatial_dims: 3 if most are volumes.
        mixed: Volumes and images stand side by side.
        sizes: Smallest and largest (height, width) or (X, Y, Z), by the number of pixels.
    """

    looked: int
    unreadable: int
    channels: int
    spatial_dims: int
    mixed: bool
    sizes: tuple[tuple[int, ...], tuple[int, ...]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFacts:
    """What the values of the masks are.

    Attributes:
        looked: Masks that were read.
        unreadable: Masks that could not be.
        plain: They are class indices, or 0 and the highest value of two classes.
        classes: Number of classes they are taken for.
        values: Distinct values in rising order, colors where there are colors.
        undecided: What a person has to decide, one line each.
    """

    looked: int
    unreadable: int
    plain: bool
    classes: int
    values: tuple[FileValue, ...]
    undecided: tuple[str, ...] = ()


def survey_images(cases: Sequence[Case]) -> ImageFacts:
    """Look into the images of up to `SAMPLE` cases, evenly spread."""
    kinds: Counter[str] = Counter()
    sizes: list[tuple[int, ...]] = []
    colored, unreadable = False, 0
    for case in spread(cases):
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
        looked=len(sizes),
        unreadable=unreadable,
        channels=3 if colored else 1,
        spatial_dims=3 if kinds["volume"] > kinds["image"] else 2,
        mixed=len(kinds) > 1,
        sizes=(sizes[0], sizes[-1]) if sizes else None,
    )


def survey_masks(cases: Sequence[Case]) -> MaskFacts:
    """Look into the masks of up to `SAMPLE` cases, evenly spread, and propose classes."""
    files = [path for case in cases for path in case.mask_files]
    seen = _Seen()
    for path in spread(files):
        try:
            seen.add(path)
        except ReadError:
            seen.unreadable += 1
    return seen.conclude()


def spread(items: Sequence[Any]) -> list[Any]:
    """Give up to `SAMPLE` of many things, evenly spread."""
    if len(items) <= SAMPLE:
        return list(items)
    return [items[(place * len(items)) // SAMPLE] for place in range(SAMPLE)]


@dataclass(slots=True)
class _Seen:
    """The values seen so far."""

    looked: int = 0
    unreadable: int = 0
    two_classes: bool = True
    soft: bool = False
    bright_share: list[float] = field(default_factory=list)
    grays: set[int] = field(default_factory=set)
    fractions: bool = False
    colors: set[int] = field(default_factory=set)

    def add(self, path: Path) -> None:
        """Take the values of one mask.

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
        self.looked += 1

    def conclude(self) -> MaskFacts:
        """Propose classes by the values."""
        if self.colors:
            every = sorted(self.colors | {gray * 0x010101 for gray in self.grays})
            return self._propose(tuple(unpack_color(code) for code in every), plain=False)
        grays = tuple(sorted(self.grays))
        if self.looked and self.two_classes and grays != (0,):
            return self._propose(grays, plain=True, classes=2)
        return self._propose(grays, plain=grays == tuple(range(len(grays))))

    def _propose(
        self, values: tuple[FileValue, ...], *, plain: bool, classes: int | None = None
    ) -> MaskFacts:
        doubts = self._doubts()
        if classes is None and (self.fractions or not 2 <= len(values) <= _MOST_VALUES):
            plain, classes = True, 2
            words = f"the masks hold {_show(values)}" if values else "no mask could be read"
            doubts = (
                f"which mask values are which class? {words}; two classes are written",
                *doubts,
            )
        return MaskFacts(
            looked=self.looked,
            unreadable=self.unreadable,
            plain=plain,
            classes=classes or len(values),
            values=values,
            undecided=doubts,
        )

    def _add_grays(self, path: Path, stored: NDArray[Any]) -> None:
        found = find_values(stored)
        self.fractions |= not bool((found == np.round(found)).all())
        self.grays.update(int(value) for value in found[:: max(1, len(found) // 300)])
        try:
            array, notes = index_classes(path, stored, classes=2)
        except MaskValuesError:
            self.two_classes = False
        else:
            self.soft |= bool(notes)
            self.bright_share.append(float(array.mean()))

    def _doubts(self) -> tuple[str, ...]:
        doubts = []
        if self.soft:
            doubts.append("some masks have soft edges; they are cut at 128")
        if self.two_classes and self.bright_share and np.mean(self.bright_share) > _MOSTLY:
            share = np.mean(self.bright_share)
            doubts.append(
                f"the higher value covers {share:.0%} of the masks: is it the background? then"
                " write `classes: {background: 255, object: 0}`"
            )
        return tuple(doubts)


def _show(values: Sequence[FileValue]) -> str:
    shown = ", ".join(map(show_value, values[:_SHOWN]))
    more = f", ... ({len(values)} or more)" if len(values) > _SHOWN else ""
    return ("the value " if len(values) == 1 else "the values ") + shown + more


def show_value(value: FileValue) -> str:
    """Write a value as a description has it."""
    return str(value) if isinstance(value, int) else "#" + bytes(value).hex()
