"""Labels of tiles: ties between classes, votes, and the position of a region."""

import numpy as np
import pytest
import torch
from torch import Tensor

from segnetr.engine.inference.accumulator import Region, label_pixels


def make_probabilities(*pixels: tuple[float, ...]) -> Tensor:
    """Return probabilities (K, 1, number of pixels)."""
    return torch.tensor(pixels).T[:, None, :]


# Four classes per pixel; the last two entries of a pixel's tuple name no class of their own.
TIED = make_probabilities(
    (0.25, 0.25, 0.25, 0.25),
    (0.5, 0.5, 0.0, 0.0),
    (0.0, 0.5, 0.5, 0.0),
    (0.125, 0.125, 0.375, 0.375),
)
LOWEST = [[0, 0, 1, 2]]


def test_ties_of_one_network_go_to_the_lowest_class_index() -> None:
    assert label_pixels([TIED], (1, 4)).tolist() == LOWEST


def test_ties_of_the_mean_of_networks_go_to_the_lowest_class_index() -> None:
    first = make_probabilities((0.75, 0.25, 0.0), (0.0, 0.25, 0.75))
    second = make_probabilities((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))
    assert label_pixels([first, second], (1, 2)).tolist() == [[0, 1]]
    assert label_pixels([TIED, TIED], (1, 4)).tolist() == LOWEST


def test_ties_of_votes_go_to_the_class_of_higher_mean_then_to_the_lowest_index() -> None:
    first = make_probabilities((0.75, 0.25, 0.0), (0.0, 0.75, 0.25), (0.0, 0.625, 0.375))
    second = make_probabilities((0.25, 0.75, 0.0), (0.0, 0.25, 0.75), (0.0, 0.25, 0.75))
    labels = label_pixels([first, second], (1, 3), combination="vote")
    # One vote each: equal means in the first two pixels, a higher mean of class 2 in the last.
    assert labels.tolist() == [[0, 1, 2]]


def test_a_network_with_tied_classes_votes_for_the_lowest_class_index() -> None:
    assert label_pixels([TIED, TIED], (1, 4), combination="vote").tolist() == LOWEST


def test_ties_with_a_weighted_background_go_to_the_background() -> None:
    probabilities = make_probabilities((0.25, 0.5, 0.25), (0.25, 0.25, 0.5))
    assert label_pixels([probabilities], (1, 2), background=2.0).tolist() == [[0, 0]]


@pytest.mark.parametrize(("axis", "shape"), [(None, (4, 5)), (0, (3, 4, 5)), (2, (4, 5, 3))])
def test_region_cuts_the_same_rows_from_an_array_of_the_file(
    axis: int | None, shape: tuple[int, ...]
) -> None:
    whole = np.arange(np.prod(shape)).reshape(shape)
    region = Region(axis=axis, plane=1, rows=slice(1, 3), start=0)
    plane = whole if axis is None else np.take(whole, 1, axis=axis)
    np.testing.assert_array_equal(region.cut(whole), plane[1:3])
