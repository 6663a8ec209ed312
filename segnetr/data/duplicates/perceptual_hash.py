"""Perceptual hashes of thumbnails: similar images differ in few bits, in any orientation.

A hash consists of the signs of the lowest frequencies of the cosine transform. Each thumbnail has
hashes of several windows, to find cropped images, and of all eight flips and 90 degree rotations,
which are sign changes and a transposition in the frequency domain.

Source: the idea of pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash
Functions, 2010). The windows and the use of signs only are ours.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnetr.data.duplicates.thumbnail import SIDE

HashWords = NDArray[np.uint64]
Spectrum = NDArray[np.float32]

ORIENTATIONS = (
    "upright",
    "mirrored left-right",
    "mirrored up-down",
    "turned by 180 degrees",
    "mirrored along the diagonal",
    "turned right",
    "turned left",
    "mirrored across the diagonal",
)
"""By number: bit 0 flips left-right, bit 1 up-down, and bit 2 transposes before that."""

FREQUENCIES = 14
_BITS = 64


class Window(NamedTuple):
    """A region of an image, in shares of its height and width from the top left corner."""

    top: float
    left: float
    bottom: float
    right: float


WHOLE = Window(0.0, 0.0, 1.0, 1.0)
_CROP = 0.05
WINDOWS: tuple[Window, ...] = (
    WHOLE,
    Window(_CROP / 2, _CROP / 2, 1 - _CROP / 2, 1 - _CROP / 2),
    Window(_CROP, _CROP, 1 - _CROP, 1 - _CROP),
    *(
        Window(top, left, 1 - bottom, 1 - right)
        for top, bottom in ((0.0, 0.0), (_CROP, 0.0), (0.0, _CROP))
        for left, right in ((0.0, 0.0), (_CROP, 0.0), (0.0, _CROP))
        if top or bottom or left or right
    ),
)
"""Candidate positions of a crop in the whole image. Others are close to one of these."""


def transform(thumbnails: NDArray[np.float32], window: Window = WHOLE) -> Spectrum:
    """Return the lowest frequencies of a window of each thumbnail.

    Args:
        thumbnails: (N, SIDE, SIDE).
        window: The region.

    Returns:
        (N, F, F) with frequencies along the height, then along the width.
    """
    down = _cosines(window.top, window.bottom)
    across = _cosines(window.left, window.right)
    return np.asarray(down @ thumbnails @ across.T, np.float32)


def transform_spectrum(spectra: Spectrum, orientation: int) -> Spectrum:
    """Return the spectra of the images in another orientation."""
    if orientation & 4:
        spectra = spectra.transpose(0, 2, 1)
    signs = (-1.0) ** np.arange(spectra.shape[1], dtype=np.float32)
    if orientation & 2:
        spectra = spectra * signs[:, None]
    if orientation & 1:
        spectra = spectra * signs
    return spectra


def turn_image(images: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Flip and rotate images (..., H, W) to one of `ORIENTATIONS`."""
    if orientation & 4:
        images = np.swapaxes(images, -1, -2)
    if orientation & 2:
        images = np.flip(images, -2)
    if orientation & 1:
        images = np.flip(images, -1)
    return images


def hash_spectra(spectra: Spectrum) -> HashWords:
    """Pack the signs of 64 frequencies of each spectrum (N, F, F) into one word."""
    rows, columns = _select_frequencies()
    bits = spectra[:, rows, columns] > 0
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


def whiten(spectra: Spectrum) -> Spectrum:
    """Return spectra as (N, F * F) vectors of length 1, with equal weight for all frequencies.

    The amplitudes of images decrease with frequency. Without whitening, the lowest frequencies
    dominate, which are similar in most images of one kind. The mean is left out.
    """
    weights = np.hypot(*np.indices((FREQUENCIES, FREQUENCIES))).astype(np.float32)
    flat = (spectra * weights).reshape(-1, FREQUENCIES**2)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-6), np.float32)


def find_near(
    queries: HashWords, targets: HashWords, *, max_bits: int, block: tuple[int, int] = (64, 4096)
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    """Compare every word with every other, block by block.

    Args:
        queries: (M,) words.
        targets: (N,) words.
        max_bits: Largest number of different bits.
        block: Queries and targets per block, small enough for the CPU cache.

    Yields:
        Rows of queries, rows of targets and number of different bits of similar words.
    """
    for first in range(0, len(queries), block[0]):
        words = queries[first : first + block[0], None]
        for start in range(0, len(targets), block[1]):
            bits = np.bitwise_count(words ^ targets[start : start + block[1]])
            rows, columns = np.nonzero(bits <= max_bits)
            if len(rows):
                yield first + rows, start + columns, bits[rows, columns]


def _cosines(start: float, end: float) -> NDArray[np.float32]:
    """Return the cosines of the transform (F, SIDE) on an interval of the side."""
    positions = ((np.arange(SIDE) + 0.5) / SIDE - start) / (end - start)
    waves = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * positions)
    # Pixels at the window's border are weighted by their share inside.
    edges = np.arange(SIDE + 1) / SIDE
    inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, 1 / SIDE)
    waves = waves * inside * SIDE
    # Remove the mean of the window, which border pixels would otherwise add.
    waves[1:] -= np.outer(waves[1:].sum(axis=1) / inside.sum(), inside)
    return np.asarray(waves, np.float32)


def _select_frequencies() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Select the lowest frequencies without the mean."""
    down, across = np.indices((FREQUENCIES, FREQUENCIES))
    order = np.lexsort((across.ravel(), down.ravel(), (down**2 + across**2).ravel()))
    selected = order[1 : 1 + _BITS]
    return np.asarray(selected // FREQUENCIES), np.asarray(selected % FREQUENCIES)
