"""Repairs of predicted labels, beside brute force."""

import numpy as np
import pytest

from segnetr.config.load import parse_plain
from segnetr.config.schema import PredictConfig
from segnetr.engine.postprocessing import postprocess
from segnetr.errors import UsageError


def random_labels(shape: tuple[int, ...], *, classes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, classes, shape) * (rng.random(shape) < 0.7)).astype(np.uint8)


def pieces(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Connected pieces, by walking from pixel to neighbour."""
    left = {tuple(int(i) for i in place) for place in np.argwhere(mask)}
    found = []
    while left:
        piece, edge = set(), [min(left)]
        while edge:
            place = edge.pop()
            if place not in left:
                continue
            left.remove(place)
            piece.add(place)
            for axis in range(mask.ndim):
                edge += [
                    (*place[:axis], place[axis] + step, *place[axis + 1 :]) for step in (-1, 1)
                ]
        found.append(piece)
    return found


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_largest_component_leaves_one_piece_of_each_class(shape, seed):
    labels = random_labels(shape, classes=3, seed=seed)
    kept = postprocess(labels, ["largest_component"])
    for index in (1, 2):
        before, after = pieces(labels == index), pieces(kept == index)
        assert len(after) == 1
        assert len(after[0]) == max(len(piece) for piece in before)
        assert after[0] in before
    assert ((kept == labels) | (kept == 0)).all()


@pytest.mark.parametrize("seed", range(4))
def test_fill_holes_fills_what_no_way_leads_out_of(seed):
    labels = random_labels((12, 12), classes=2, seed=seed)
    filled = postprocess(labels, ["fill_holes"])
    outside = np.zeros(labels.shape, bool)
    for piece in pieces(labels == 0):
        if any(place[axis] in (0, 11) for place in piece for axis in (0, 1)):
            outside[tuple(zip(*piece, strict=True))] = True
    np.testing.assert_array_equal(filled == 0, outside)


def test_a_hole_full_of_another_class_stays():
    labels = np.ones((5, 5), np.uint8)
    labels[2, 2] = 2
    np.testing.assert_array_equal(postprocess(labels, ["fill_holes"]), labels)


def test_labels_that_come_in_are_not_changed():
    labels = random_labels((8, 8), classes=2, seed=1)
    before = labels.copy()
    postprocess(labels, ["largest_component", "fill_holes"])
    np.testing.assert_array_equal(labels, before)


def test_nothing_stays_nothing():
    empty = np.zeros((4, 5), np.uint8)
    assert not postprocess(empty, ["largest_component", "fill_holes"]).any()


def test_unknown_step_is_refused():
    with pytest.raises(UsageError, match="largest_component"):
        parse_plain(PredictConfig, {"post": ["smooth"]})
