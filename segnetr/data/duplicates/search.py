"""Images that are the same but for resizing, recompression, mirroring, turning or cut borders.

Three steps, each for the few that the one before let through: hashes of 64 bits, all with all; the
correlation of the lowest frequencies; and the correlation of the detail once one thumbnail was
fitted upon the other. The last one decides, the first two only save time.

The limits were chosen on real images (dermoscopy, nuclei, ultrasound, chest X-rays of 28 pixels):
`benchmarks/leaks.py` measures what they find and what they imagine.
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
    Spectrum,
    Words,
    find_near,
    hash_spectra,
    transform,
    transform_spectrum,
    turn_image,
    whiten,
)
from segnetr.data.duplicates.thumbnail import Thumbnail

Kind = Literal["identical", "recompressed", "resized", "mirrored", "turned", "cropped"]

LEAST_LIKENESS = 0.92
"""Correlation of the detail from which two images are called alike."""
_MOST_BITS = 12
_LEAST_COARSE = 0.82
_LEAST_DEVIATION = 1.0  # gray values of 255; a image flatter than this has nothing to compare
# Any spot on black fits any other one that is shifted and stretched, so the fewer pixels of the
# thumbnail the detail lies on, the better it must fit; below the lower number (the least of the
# real images mentioned above has 33) two images must also lie upon each other as a whole.
_FEW_DETAILED, _ENOUGH_DETAILED = 25, 100
_LEAST_LIKENESS_OF_FEW = 0.97
# Share of a side. A thumbnail's pixel is 0.016 of it, and the fit errs by less than half of that.
_LEAST_CUT = 0.012
_REFLECTIONS = (1, 2, 4, 7)

_Found = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatePair:
    """Two images that are one.

    Attributes:
        first: Row of the one; the lower row.
        second: Row of the other.
        kind: What was done to one of them; of several changes the last in the list of `Kind`.
        likeness: Correlation of their detail, up to 1.
        orientation: How the one stands to the other, a word of `ORIENTATIONS`.
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
    """Spectra of images in one orientation or window, ready to be compared."""

    words: Words
    vectors: Spectrum


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Pairs to look at closely: a part, in some orientation, may be a window of a whole."""

    wholes: NDArray[np.intp]
    parts: NDArray[np.intp]
    orientations: NDArray[np.intp]
    windows: NDArray[np.intp]


def find_duplicates(
    thumbnails: Sequence[Thumbnail],
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[DuplicatePair]:
    """Find all pairs of images that are alike.

    Args:
        thumbnails: Of any number of images.
        workers: Threads that compare.
        progress: Called with steps done and all steps.

    Returns:
        The pairs, by first and second row. The order of the images decides which of two is
        first, and nothing else.
    """
    if not thumbnails:
        return []
    pairs = {pair: _describe_identical(*pair) for pair in _find_identical(thumbnails)}
    gray = np.array([thumbnail.gray for thumbnail in thumbnails], np.float32)
    rows = np.flatnonzero(gray.std(axis=(1, 2)) >= _LEAST_DEVIATION)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = _find_candidates(gray[rows], pool, progress or _ignore)
        fits = _fit_candidates(gray[rows], found, pool)
    wholes, parts = rows[found.wholes], rows[found.parts]
    # Each two images are candidates once.
    for place in np.flatnonzero(_accept(gray[rows], found, fits)):
        pair = _sort_pair(int(wholes[place]), int(parts[place]))
        if pair not in pairs:
            sizes = thumbnails[wholes[place]].size, thumbnails[parts[place]].size
            orientation = int(found.orientations[place])
            pairs[pair] = _describe(pair, sizes, orientation, fits, int(place))
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
    """Give for each two images the orientation and window in which they are nearest."""
    spectra = transform(gray)
    parts = [_index(transform_spectrum(spectra, way)) for way in range(len(ORIENTATIONS))]
    columns: list[NDArray[np.float64]] = []
    for window, seen in enumerate(WINDOWS):
        wholes = _index(transform(gray, seen))
        search = partial(_search, wholes, is_whole=seen is WHOLE)
        for way, (rows, others, coarse) in enumerate(pool.map(search, parts)):
            marks = np.full(len(rows), way), np.full(len(rows), window)
            columns.append(np.stack([others, rows, *marks, coarse], axis=1))
        progress(window + 1, len(WINDOWS))
    found = np.concatenate([np.empty((0, 5)), *columns])
    low, high = found[:, :2].min(axis=1, initial=np.inf), found[:, :2].max(axis=1, initial=-1)
    order = np.lexsort((-found[:, 4], high, low))
    is_best = np.ones(len(order), bool)
    is_best[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    kept = found[order[is_best], :4].astype(np.intp)
    return _Candidates(*kept.T)


def _index(spectra: Spectrum) -> _Index:
    return _Index(hash_spectra(spectra), whiten(spectra))


def _search(wholes: _Index, parts: _Index, *, is_whole: bool) -> _Found:
    """Give rows of parts and wholes that are near, and their coarse correlation."""
    rows, columns, values = [], [], []
    near = find_near(parts.words, wholes.words, most_bits=_MOST_BITS)
    for some_rows, some_columns, _ in near:
        # Whole against whole comes up twice, here and with the inverse orientation.
        kept = some_rows < some_columns if is_whole else some_rows != some_columns
        row, column = some_rows[kept], some_columns[kept]
        coarse = np.einsum("nf,nf->n", parts.vectors[row], wholes.vectors[column])
        kept = coarse >= _LEAST_COARSE
        rows.append(row[kept])
        columns.append(column[kept])
        values.append(coarse[kept])
    empty = np.empty(0, np.intp)
    return (
        np.concatenate([empty, *rows]),
        np.concatenate([empty, *columns]),
        np.concatenate([np.empty(0, np.float32), *values]),
    )


def _fit_candidates(
    gray: NDArray[np.float32], found: _Candidates, pool: ThreadPoolExecutor, at_once: int = 256
) -> Alignment:
    edges = np.array(WINDOWS)
    starts = np.concatenate([edges[:, :2], edges[:, 2:] - edges[:, :2]], axis=1)

    def fit(first: int) -> Alignment:
        some = slice(first, first + at_once)
        chosen = zip(found.parts[some], found.orientations[some], strict=True)
        parts = np.array([turn_image(gray[row], int(way)) for row, way in chosen])
        return align(gray[found.wholes[some]], parts, starts[found.windows[some]])

    fits = list(pool.map(fit, range(0, len(found.parts), at_once)))
    return Alignment(
        np.concatenate([np.empty((0, 4)), *(fit.place for fit in fits)]),
        np.concatenate([np.empty(0), *(fit.likeness for fit in fits)]),
    )


def _accept(gray: NDArray[np.float32], found: _Candidates, fits: Alignment) -> NDArray[np.bool_]:
    """Decide which candidates are one image."""
    counts = count_detailed(gray)
    detailed = np.minimum(counts[found.wholes], counts[found.parts])
    needed = np.interp(
        detailed,
        (_FEW_DETAILED, _ENOUGH_DETAILED),
        (_LEAST_LIKENESS_OF_FEW, LEAST_LIKENESS),
    )
    is_whole = _measure_cut(fits.place) <= _LEAST_CUT
    return (fits.likeness >= needed) & (is_whole | (detailed >= _FEW_DETAILED))


def _measure_cut(place: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give how far the borders of parts (N, 4) lie from those of the whole, as shares of a side."""
    ends = place[:, :2] + place[:, 2:]
    return np.asarray(np.abs(np.concatenate([place[:, :2], 1 - ends], axis=1)).max(axis=1))


def _describe(
    pair: tuple[int, int],
    sizes: tuple[tuple[int, int], tuple[int, int]],
    orientation: int,
    fits: Alignment,
    place: int,
) -> DuplicatePair:
    cut = _measure_cut(fits.place[place : place + 1])[0]
    height, width = (float(share) for share in fits.place[place, 2:])
    whole, part = sizes
    kind: Kind = "recompressed"
    if whole != (part[::-1] if orientation & 4 else part):
        kind = "resized"
    if orientation:
        kind = "mirrored" if orientation in _REFLECTIONS else "turned"
    if cut > _LEAST_CUT:
        kind = "cropped"
    return DuplicatePair(
        first=pair[0],
        second=pair[1],
        kind=kind,
        likeness=min(1.0, float(fits.likeness[place])),
        orientation=ORIENTATIONS[orientation],
        overlap=min(1.0, height * width),
    )


def _sort_pair(one: int, other: int) -> tuple[int, int]:
    return (one, other) if one < other else (other, one)


def _ignore(done: int, total: int) -> None:
    """Take a report of progress nobody waits for."""
