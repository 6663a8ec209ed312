"""Perceptual hashes of thumbnails: near images differ in few bits, in whatever orientation.

A hash is the signs of the lowest frequencies of the cosine transform. Of each thumbnail there are
hashes of several windows, so that a image whose borders were cut off is found, and of all eight
mirrorings and quarter turns, which in the frequency domain are changes of sign and a transposition.

Source: the idea is that of pHash (Zauner, Implementation and Benchmarking of Perceptual Image Hash
Functions, 2010); the windows and the use of signs alone are ours.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segnetr.data.duplicates.thumbnail import SIDE

Words = NDArray[np.uint64]
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
"""By number: bit 0 mirrors left-right, bit 1 up-down, and bit 2 transposes before that."""

FREQUENCIES = 14
_BITS = 64


class Window(NamedTuple):
    """A part of a image, as shares of its height and width from the top left corner."""

    top: float
    left: float
    bottom: float
    right: float


WHOLE = Window(0.0, 0.0, 1.0, 1.0)
_CUT = 0.05
WINDOWS: tuple[Window, ...] = (
    WHOLE,
    Window(_CUT / 2, _CUT / 2, 1 - _CUT / 2, 1 - _CUT / 2),
    Window(_CUT, _CUT, 1 - _CUT, 1 - _CUT),
    *(
        Window(top, left, 1 - bottom, 1 - right)
        for top, bottom in ((0.0, 0.0), (_CUT, 0.0), (0.0, _CUT))
        for left, right in ((0.0, 0.0), (_CUT, 0.0), (0.0, _CUT))
        if top or bottom or left or right
    ),
)
"""Where a cut image may have lain in the whole one; others lie near one of these."""


def transform(thumbnails: NDArray[np.float32], window: Window = WHOLE) -> Spectrum:
    """Give the lowest frequencies of a window of each thumbnail.

    Args:
        thumbnails: (N, SIDE, SIDE).
        window: The part to look at.

    Returns:
        (N, F, F); frequencies along the height, then along the width.
    """
    down = _cosines(window.top, window.bottom)
    across = _cosines(window.left, window.right)
    return np.asarray(down @ thumbnails @ across.T, np.float32)


def transform_spectrum(spectra: Spectrum, orientation: int) -> Spectrum:
    """Give the spectra of the images in another orientation."""
    if orientation & 4:
        spectra = spectra.transpose(0, 2, 1)
    signs = (-1.0) ** np.arange(spectra.shape[1], dtype=np.float32)
    if orientation & 2:
        spectra = spectra * signs[:, None]
    if orientation & 1:
        spectra = spectra * signs
    return spectra


def turn_image(images: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Mirror and turn images (..., H, W) into an orientation of the table above."""
    if orientation & 4:
        images = np.swapaxes(images, -1, -2)
    if orientation & 2:
        images = np.flip(images, -2)
    if orientation & 1:
        images = np.flip(images, -1)
    return images


def hash_spectra(spectra: Spectrum) -> Words:
    """Pack the signs of 64 frequencies of each spectrum (N, F, F) into one word."""
    rows, columns = _chosen()
    bits = spectra[:, rows, columns] > 0
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(np.uint64)[:, 0]


def whiten(spectra: Spectrum) -> Spectrum:
    """Give spectra as (N, F * F) vectors of length 1 in which fine detail counts like coarse.

    Images have about one over the frequency of each wave: without this the coarsest decide, and
    those are alike in most images of one kind. The mean is left out.
    """
    weights = np.hypot(*np.indices((FREQUENCIES, FREQUENCIES))).astype(np.float32)
    flat = (spectra * weights).reshape(-1, FREQUENCIES**2)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-6), np.float32)


def find_near(
    queries: Words, targets: Words, *, most_bits: int, block: tuple[int, int] = (64, 4096)
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]]:
    """Compare every word with every other, block by block.

    Args:
        queries: (M,) words.
        targets: (N,) words.
        most_bits: Largest number of different bits.
        block: Queries and targets compared at once; small enough for a processor's cache.

    Yields:
        Rows of queries, rows of targets and different bits of the near ones.
    """
    for first in range(0, len(queries), block[0]):
        some = queries[first : first + block[0], None]
        for start in range(0, len(targets), block[1]):
            bits = np.bitwise_count(some ^ targets[start : start + block[1]])
            rows, columns = np.nonzero(bits <= most_bits)
            if len(rows):
                yield first + rows, start + columns, bits[rows, columns]


def _cosines(start: float, end: float) -> NDArray[np.float32]:
    """Give the cosines of the transform (F, SIDE), laid over a part of the side."""
    places = ((np.arange(SIDE) + 0.5) / SIDE - start) / (end - start)
    waves = np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * places)
    # Pixels at the window's border count by the share of them that lies inside.
    edges = np.arange(SIDE + 1) / SIDE
    inside = np.clip(np.minimum(edges[1:], end) - np.maximum(edges[:-1], start), 0, 1 / SIDE)
    waves = waves * inside * SIDE
    # Without the mean of the window, which border pixels would otherwise let through.
    waves[1:] -= np.outer(waves[1:].sum(axis=1) / inside.sum(), inside)
    return np.asarray(waves, np.float32)


def _chosen() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Choose frequencies, the lowest first; the mean is none."""
    down, across = np.indices((FREQUENCIES, FREQUENCIES))
    order = np.lexsort((across.ravel(), down.ravel(), (down**2 + across**2).ravel()))
    chosen = order[1 : 1 + _BITS]
    return np.asarray(chosen // FREQUENCIES), np.asarray(chosen % FREQUENCIES)
