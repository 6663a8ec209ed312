"""Find duplicate images, also if resized, recompressed, flipped, rotated or cropped.

The search has three stages, each for the candidates of the previous one: 64-bit hashes, all against
all; the correlation of the lowest frequencies; and the correlation of the detail after one
thumbnail was aligned to the other. The last stage decides, the first two only save time.

The thresholds were chosen on real images (dermoscopy, nuclei, ultrasound, chest X-rays of 28
pixels). `benchmarks/leaks.py` measures true and false positives.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segnetr.data.duplicates.alignment import Alignment, align, count_detailed
from segnetr.data.duplicates.perceptual_hash import (
    ORIENTATIONS,
    WHOLE,
    WINDOWS,
    HashWords,
    Spectrum,
    find_near,
    hash_spectra,
    transform,
    transform_spectrum,
    turn_image,
    whiten,
)
from segnetr.data.duplicates.thumbnail import Thumbnail

Kind = Literal["identical", "recompressed", "resized", "mirrored", "turned", "cropped"]

MIN_SIMILARITY = 0.92
"""Smallest correlation of the detail of two duplicates."""
_MAX_BITS = 12
_MIN_COARSE = 0.82
_MIN_DEVIATION = 1.0  # of 255 gray values; a more uniform image has no detail to compare
# Any spot on black can be aligned to any other, so images with few pixels of detail need a higher
# similarity. Below the lower number (the minimum of the real images above is 33), two images must
# also have the same borders.
_FEW_DETAILED, _ENOUGH_DETAILED = 25, 100
_MIN_SIMILARITY_OF_FEW = 0.97
# Share of a side. A pixel of a thumbnail is 0.016, and the alignment error is less than half of it.
_MIN_CROP = 0.012
_REFLECTIONS = (1, 2, 4, 7)

_Found = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """Two images that are duplicates.

    Attributes:
        first: The lower row of the two images.
        second: The higher row.
        kind: How they differ. If several kinds apply, the last one in the list of `Kind`.
        likeness: Correlation of their detail, up to 1.
        orientation: Relative orientation, one of `ORIENTATIONS`.
        overlap: Share of the larger image that the other one shows.
    """

    first: int
    second: int
    kind: Kind
    likeness: float
    orientation: str
    overlap: float


@dataclass(frozen=True, slots=True, eq=False)
class _Index:
    """Hashes and spectra of images in one orientation or window."""

    words: HashWords
    vectors: Spectrum


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Candidate pairs: a crop, in some orientation, may be a window of a whole image."""

    wholes: NDArray[np.intp]
    crops: NDArray[np.intp]
    orientations: NDArray[np.intp]
    windows: NDArray[np.intp]


def find_duplicates(
    thumbnails: Sequence[Thumbnail],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[DuplicatePair]:
    """Find all pairs of duplicate images.

    Args:
        thumbnails: One per image.
        workers: Number of threads.
        progress: Called with (finished steps, all steps).

    Returns:
        The pairs, sorted by first and second row. The order of the images only determines which of
        two images is the first.
    """
    if not thumbnails:
        return []
    pairs = {pair: _describe_identical(*pair) for pair in _find_identical(thumbnails)}
    gray = np.array([thumbnail.gray for thumbnail in thumbnails], np.float32)
    rows = np.flatnonzero(gray.std(axis=(1, 2)) >= _MIN_DEVIATION)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = _find_candidates(gray[rows], pool, progress or _ignore)
        fits = _fit_candidates(gray[rows], found, pool)
    wholes, crops = rows[found.wholes], rows[found.crops]
    # Two images are a candidate at most once.
    for index in np.flatnonzero(_accept(gray[rows], found, fits)):
        pair = _sort_pair(int(wholes[index]), int(crops[index]))
        if pair not in pairs:
            sizes = thumbnails[wholes[index]].size, thumbnails[crops[index]].size
            orientation = int(found.orientations[index])
            pairs[pair] = _describe(pair, sizes, orientation, fits, int(index))
    return [pairs[pair] for pair in sorted(pairs)]


def _find_identical(thumbnails: Sequence[Thumbnail]) -> Iterator[tuple[int, int]]:
    rows_by_hash: dict[str, list[int]] = {}
    for row, thumbnail in enumerate(thumbnails):
        earlier = rows_by_hash.setdefault(thumbnail.sha256, [])
        for first in earlier:
            yield first, row
        earlier.append(row)


def _describe_identical(first: int, second: int) -> DuplicatePair:
    return DuplicatePair(
        first=first,
        second=second,
        kind="identical",
        likeness=1.0,
        orientation=ORIENTATIONS[0],
        overlap=1.0,
    )


def _find_candidates(
    gray: NDArray[np.float32], pool: ThreadPoolExecutor, progress: Callable[[int, int], None]
) -> _Candidates:
    """Return for each pair of images the orientation and window with the highest correlation."""
    spectra = transform(gray)
    crops = [_index(transform_spectrum(spectra, k)) for k in range(len(ORIENTATIONS))]
    columns: list[NDArray[np.float64]] = []
    for number, window in enumerate(WINDOWS):
        wholes = _index(transform(gray, window))
        search = partial(_search, wholes, is_whole=window is WHOLE)
        for orientation, (rows, others, coarse) in enumerate(pool.map(search, crops)):
            labels = np.full(len(rows), orientation), np.full(len(rows), number)
            columns.append(np.stack([others, rows, *labels, coarse], axis=1))
        progress(number + 1, len(WINDOWS))
    found = np.concatenate([np.empty((0, 5)), *columns])
    low, high = found[:, :2].min(axis=1, initial=np.inf), found[:, :2].max(axis=1, initial=-1)
    order = np.lexsort((-found[:, 4], high, low))
    is_best = np.ones(len(order), bool)
    is_best[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    best = found[order[is_best], :4].astype(np.intp)
    return _Candidates(*best.T)


def _index(spectra: Spectrum) -> _Index:
    return _Index(hash_spectra(spectra), whiten(spectra))


def _search(wholes: _Index, crops: _Index, *, is_whole: bool) -> _Found:
    """Return rows of similar crops and wholes, and their coarse correlation."""
    rows, columns, values = [], [], []
    near = find_near(crops.words, wholes.words, max_bits=_MAX_BITS)
    for block_rows, block_columns, _ in near:
        # A pair of whole images occurs twice, also with the inverse orientation.
        selected = block_rows < block_columns if is_whole else block_rows != block_columns
        row, column = block_rows[selected], block_columns[selected]
        coarse = np.einsum("nf,nf->n", crops.vectors[row], wholes.vectors[column])
        selected = coarse >= _MIN_COARSE
        rows.append(row[selected])
        columns.append(column[selected])
        values.append(coarse[selected])
    empty = np.empty(0, np.intp)
    return (
        np.concatenate([empty, *rows]),
        np.concatenate([empty, *columns]),
        np.concatenate([np.empty(0, np.float32), *values]),
    )


def _fit_candidates(
    gray: NDArray[np.float32], found: _Candidates, pool: ThreadPoolExecutor, batch_size: int = 256
) -> Alignment:
    edges = np.array(WINDOWS)
    starts = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)

    def fit(first: int) -> Alignment:
        batch = slice(first, first + batch_size)
        items = zip(found.crops[batch], found.orientations[batch], strict=True)
        crops = np.array([turn_image(gray[row], int(orientation)) for row, orientation in items])
        return align(gray[found.wholes[batch]], crops, starts[found.windows[batch]])

    fits = list(pool.map(fit, range(0, len(found.crops), batch_size)))
    return Alignment(
        np.concatenate([np.empty((0, 4)), *(fit.box for fit in fits)]),
        np.concatenate([np.empty(0), *(fit.likeness for fit in fits)]),
    )


def _accept(gray: NDArray[np.float32], found: _Candidates, fits: Alignment) -> NDArray[np.bool_]:
    """Decide which candidates are duplicates."""
    counts = count_detailed(gray)
    detailed = np.minimum(counts[found.wholes], counts[found.crops])
    threshold = np.interp(
        detailed,
        (_FEW_DETAILED, _ENOUGH_DETAILED),
        (_MIN_SIMILARITY_OF_FEW, MIN_SIMILARITY),
    )
    is_whole = _measure_crop(fits.box) <= _MIN_CROP
    return (fits.likeness >= threshold) & (is_whole | (detailed >= _FEW_DETAILED))


def _measure_crop(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the largest distance of the borders of crops (N, 4) from those of the wholes."""
    ends = boxes[:, :2] + boxes[:, 2:]
    return np.asarray(np.abs(np.concatenate([boxes[:, :2], 1 - ends], axis=1)).max(axis=1))


def _describe(
    pair: tuple[int, int],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    orientation: int,
    fits: Alignment,
    index: int,
) -> DuplicatePair:
    cropped = _measure_crop(fits.box[index : index + 1])[0]
    height, width = (float(share) for share in fits.box[index, 2:])
    whole, crop = sizes
    kind: Kind = "recompressed"
    if whole != (crop[::-1] if orientation & 4 else crop):
        kind = "resized"
    if orientation:
        kind = "mirrored" if orientation in _REFLECTIONS else "turned"
    if cropped > _MIN_CROP:
        kind = "cropped"
    return DuplicatePair(
        first=pair[0],
        second=pair[1],
        kind=kind,
        likeness=min(1.0, float(fits.likeness[index])),
        orientation=ORIENTATIONS[orientation],
        overlap=min(1.0, height * width),
    )


def _sort_pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _ignore(done: int, total: int) -> None:
    """Ignore progress."""
