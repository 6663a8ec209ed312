"""Test that outlines on images are sharp, visible, correctly positioned and limited in size."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from segnetr.data.readers.image_file import ImageFile
from segnetr.outputs.masks.overlay import (
    CLASS_COLORS,
    OVERLAY_SIDE,
    choose_slices,
    draw_overlay,
    outline_labels,
    to_display,
)


def square(height: int, width: int, *, label: int = 1) -> NDArray[np.uint8]:
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[height // 4 : height // 2, width // 4 : width // 2] = label
    return labels


def image(array: NDArray[np.generic], kind: str = "image", **more: object) -> ImageFile:
    return ImageFile(path=Path("x"), array=array, kind=kind, **more)


@pytest.mark.parametrize("skin", [(250, 220, 200), (60, 35, 25), (0, 255, 255)])
def test_outline_is_inside_the_edge_with_a_dark_rim(skin: tuple[int, int, int]) -> None:
    shown = np.full((80, 80, 3), skin, dtype=np.uint8)
    synthetic = outline_labels(shown, square(80, 80))
    row = synthetic[30]
    color = np.array(CLASS_COLORS[0])
    np.testing.assert_array_equal(row[20:22], [color, color])
    np.testing.assert_array_equal(row[38:40], [color, color])
    np.testing.assert_array_equal(row[[19, 22, 37, 40]], np.zeros((4, 3)))
    np.testing.assert_array_equal(row[:19], shown[30, :19])
    np.testing.assert_array_equal(row[23:37], shown[30, 23:37])


def test_outline_runs_along_the_border_of_the_image() -> None:
    synthetic = outline_labels(np.full((50, 50, 3), 90, np.uint8), np.ones((50, 50), np.uint8))
    color = np.array(CLASS_COLORS[0])
    for border in (synthetic[:2], synthetic[-2:], synthetic[:, :2], synthetic[:, -2:]):
        assert (border == color).all()


def test_every_class_has_its_own_color() -> None:
    labels = np.zeros((60, 240), dtype=np.uint8)
    for label in range(1, 9):
        labels[20:40, 28 * label - 20 : 28 * label] = label
    synthetic = outline_labels(np.full((60, 240, 3), 128, np.uint8), labels)
    for label in range(1, 9):
        wanted = CLASS_COLORS[(label - 1) % len(CLASS_COLORS)]
        assert tuple(synthetic[30, 28 * label - 20]) == wanted


def test_image_without_foreground_is_unchanged() -> None:
    shown = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    synthetic = draw_overlay(image(shown), np.zeros((40, 50), np.uint8))
    np.testing.assert_array_equal(synthetic, shown)


@pytest.mark.parametrize(
    ("grid", "wanted"),
    [
        ((1500, 3000), (512, 1024)),
        ((3000, 10), (1024, 3)),
        ((100, 80), (100, 80)),
        ((1, 1), (1, 1)),
    ],
)
def test_large_image_is_reduced_and_small_one_is_not(
    grid: tuple[int, int], wanted: tuple[int, int]
) -> None:
    synthetic = draw_overlay(image(np.full((*grid, 1), 77, np.uint8)), np.zeros(grid, np.uint8))
    assert synthetic.shape == (*wanted, 3)
    assert (synthetic == 77).all()


def test_values_of_other_types_are_scaled_to_the_full_gray_range() -> None:
    for dtype in (np.uint16, np.int16, np.float32):
        values = np.linspace(0, 1000, 10_000).reshape(100, 100, 1).astype(dtype)
        shown = to_display(values)
        assert (shown.min(), shown.max()) == (0, 255)
        assert abs(float(shown.mean()) - 127.5) < 3
        assert len(np.unique(to_display(np.full((5, 5, 1), 7, dtype)))) == 1


def test_slices_are_evenly_selected_from_the_foreground() -> None:
    labels = np.zeros((4, 4, 100), dtype=np.uint8)
    assert len(choose_slices(labels)) == 16
    labels[1, 1, 40:43] = 1
    assert choose_slices(labels) == [40, 41, 42]
    labels[1, 1, 20:90] = 2
    chosen = choose_slices(labels)
    assert (len(chosen), chosen[0], chosen[-1]) == (16, 20, 89)
    assert chosen == sorted(set(chosen))


@pytest.mark.parametrize("shape", [(31, 43, 26), (1, 5, 1), (512, 300, 2), (5, 2000, 3)])
def test_montage_of_a_volume_stays_within_its_size(shape: tuple[int, int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 4000, shape, dtype=np.int16)
    labels = (values > 3500).astype(np.uint8)
    synthetic = draw_overlay(image(values, "volume", spacing=(0.7, 0.7, 5.0)), labels)
    assert synthetic.ndim == 3
    assert max(synthetic.shape) <= OVERLAY_SIDE


def test_slice_is_upright_with_correct_proportions() -> None:
    values = np.zeros((20, 40, 1), dtype=np.uint8)
    values[15:, 30:] = (
        200  # the end of the first axis is on the right, the end of the second at the top
    )
    synthetic = draw_overlay(
        image(values, "volume", spacing=(2.0, 1.0, 1.0)), np.zeros((20, 40, 1), np.uint8)
    )
    height, width = synthetic.shape[:2]
    assert height == width
    assert synthetic[5, -5, 0] == 200
    assert synthetic[-5, 5, 0] == 0
