"""Repairs of predicted labels, beside brute force."""

import numpy as np
import pytest

from segnetr.config.load import parse_plain
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.engine.inference.postprocessing import choose_labels, postprocess
from segnetr.errors import UsageError


def random_labels(shape: tuple[int, ...], *, classes: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, classes, shape) * (rng.random(shape) < 0.7)).astype(np.uint8)


def pieces(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Connected pieces, by walking from pixel to neighbor."""
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
def test_largest_component_keeps_one_component_per_class(shape, seed):
    labels = random_labels(shape, classes=3, seed=seed)
    kept = postprocess(labels, ["largest_component"])
    for index in (1, 2):
        before, after = pieces(labels == index), pieces(kept == index)
        assert len(after) == 1
        assert len(after[0]) == max(len(piece) for piece in before)
        assert after[0] in before
    assert ((kept == labels) | (kept == 0)).all()


@pytest.mark.parametrize("seed", range(4))
def test_fill_holes_fills_enclosed_background(seed):
    labels = random_labels((12, 12), classes=2, seed=seed)
    has_foreground = postprocess(labels, ["fill_holes"])
    outside = np.zeros(labels.shape, bool)
    for piece in pieces(labels == 0):
        if any(place[axis] in (0, 11) for place in piece for axis in (0, 1)):
            outside[tuple(zip(*piece, strict=True))] = True
    np.testing.assert_array_equal(has_foreground == 0, outside)


@pytest.mark.parametrize("shape", [(9, 11), (5, 6, 4)])
@pytest.mark.parametrize("least", [1, 2, 4])
def test_only_components_of_fewer_pixels_are_removed(shape, least):
    labels = random_labels(shape, classes=3, seed=least)
    kept = postprocess(labels, [f"remove_small:{least}"])
    for index in (1, 2):
        expected = [piece for piece in pieces(labels == index) if len(piece) >= least]
        assert sorted(map(sorted, pieces(kept == index))) == sorted(map(sorted, expected))


def test_threshold_of_one_foreground_class_is_one_on_its_probability():
    rng = np.random.default_rng(0)
    foreground = rng.random((40, 50), dtype=np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    for threshold in (0.2, 0.5, 0.8):
        clear = np.abs(foreground - threshold) > 1e-6
        labels = choose_labels(probabilities, threshold)
        np.testing.assert_array_equal((labels == 1)[clear], (foreground > threshold)[clear])


def test_threshold_of_one_half_is_the_most_probable_class():
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet((1, 1, 1), 500).astype(np.float32).T
    np.testing.assert_array_equal(choose_labels(probabilities, 0.5), probabilities.argmax(axis=0))
    rarer = choose_labels(probabilities, 0.8)
    assert set(np.flatnonzero(rarer)) < set(np.flatnonzero(probabilities.argmax(axis=0)))


def test_a_hole_filled_by_another_class_is_kept():
    labels = np.ones((5, 5), np.uint8)
    labels[2, 2] = 2
    np.testing.assert_array_equal(postprocess(labels, ["fill_holes"]), labels)


def test_postprocessing_does_not_modify_its_input():
    labels = random_labels((8, 8), classes=2, seed=1)
    before = labels.copy()
    postprocess(labels, ["largest_component", "fill_holes"])
    np.testing.assert_array_equal(labels, before)


def test_empty_labels_stay_empty():
    empty = np.zeros((4, 5), np.uint8)
    assert not postprocess(empty, ["largest_component", "fill_holes"]).any()


@pytest.mark.parametrize("step", ["smooth", "remove_small", "remove_small:0", "remove_small:-3"])
def test_unknown_step_is_rejected(step):
    with pytest.raises(UsageError, match="largest_component"):
        parse_plain(PredictConfig, {"postprocessing": [step]})
