"""Repairs chosen on validation cases: what helps is found, what does not is left alone."""

import numpy as np
import pytest

from segnetr.config.load import load_config
from segnetr.data.case import Split
from segnetr.engine.inference.postprocessing import choose_labels
from segnetr.engine.inference.postprocessing_search import (
    THRESHOLDS,
    PostprocessingOption,
    PostprocessingSearch,
)
from segnetr.errors import UsageError
from segnetr.metrics import score_masks
from segnetr.workflows.training.search_postprocessing import check_search_settings

SHAPE = (40, 40)


def disc(center, radius):
    rows, columns = np.ogrid[: SHAPE[0], : SHAPE[1]]
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2


def probabilities(mask, *, inside=0.95, outside=0.05):
    foreground = np.where(mask, inside, outside).astype(np.float32)
    return np.stack([1 - foreground, foreground])


def choose(cases, *, patients=None):
    chooser = PostprocessingSearch([int(ground_truth.sum()) for _, ground_truth in cases])
    for number, (answer, ground_truth) in enumerate(cases):
        labels = {value: choose_labels(answer, value) for value in THRESHOLDS}
        chooser.add(f"c{number}", labels, ground_truth.astype(np.uint8), classes=2)
    return chooser.choose(patients=patients or {})


def case(number, *, specks=False, hole=False, timid=False):
    ground_truth = disc((18 + number % 3, 20), 9 + number % 2)
    found = ground_truth.copy()
    if specks:
        found |= disc((3, 3 + number % 4), 2)
    if hole:
        found &= ~disc((18, 20), 2)
    answer = probabilities(found)
    if timid:
        answer = probabilities(found, inside=0.45)
    return answer, ground_truth


def names(trials):
    return [trial.step for trial in trials if trial.taken]


def test_nothing_is_selected_if_nothing_helps():
    repair, trials = choose([case(number) for number in range(8)])
    assert repair == PostprocessingOption()
    assert names(trials) == []
    assert len(trials) >= 6


def test_specks_are_removed_and_holes_filled_if_that_helps():
    repair, trials = choose([case(n, specks=True, hole=True) for n in range(8)])
    assert repair.threshold == 0.5
    assert repair.components in ("largest_component", "remove_small:27", "remove_small:28")
    assert repair.holes == "fill_holes"
    taken = [trial for trial in trials if trial.taken]
    assert all(trial.low > 0 for trial in taken)
    assert names(trials) == list(repair.steps)


def test_a_lower_threshold_is_selected_for_an_underconfident_network():
    repair, trials = choose([case(number, timid=True) for number in range(8)])
    assert repair.threshold in (0.3, 0.4)
    assert names(trials)[0].startswith("threshold:")


def test_a_step_that_helps_half_of_the_cases_and_hurts_the_others_is_not_selected():
    cases = [case(number, specks=True) for number in range(5)]
    ground_truth = disc((12, 12), 5) | disc((28, 28), 5)  # of one size: one of them would go
    cases += [(probabilities(ground_truth), ground_truth)] * 5
    chooser_trials = choose(cases)[1]
    assert "largest_component" not in names(chooser_trials)


def test_a_small_significant_gain_is_preferred_to_a_larger_insignificant_one():
    cases = []
    for number in range(8):
        ground_truth = case(number)[1]
        other = disc((33, 33), 6)
        if number < 2:  # two structures, of which the largest component would lose one
            ground_truth = disc((12, 30), 8) | disc((30, 12), 8)
        found = (
            ground_truth | disc((3, 3 + number % 4), 2) | (other if number >= 2 else ground_truth)
        )
        cases.append((probabilities(found), ground_truth))
    trials = {trial.step: trial for trial in choose(cases)[1]}
    largest = trials["largest_component"]
    small = next(trial for trial in trials.values() if trial.taken)
    assert small.step.startswith("remove_small")
    assert largest.gain > small.gain > small.low > 0 > largest.low
    assert not largest.taken


def test_few_patients_never_decide_whatever_their_number_of_cases():
    cases = [case(number, specks=True) for number in range(10)]
    patients = {f"c{number}": f"p{number % 3}" for number in range(10)}
    repair, trials = choose(cases, patients=patients)
    assert repair == PostprocessingOption()
    assert all(trial.low is None and trial.gain is not None for trial in trials)


def test_gain_is_that_of_the_dice_of_the_metrics():
    rng = np.random.default_rng(0)
    ground_truth = rng.integers(0, 3, SHAPE).astype(np.uint8)
    answer = rng.dirichlet((1, 1, 1), SHAPE).astype(np.float32).transpose(2, 0, 1)
    chooser = PostprocessingSearch([100])
    labels = {value: choose_labels(answer, value) for value in THRESHOLDS}
    chooser.add("a", labels, ground_truth, classes=3)
    _, trials = chooser.choose(patients={})
    found = {}
    for threshold in (0.5, 0.3):
        weighted = answer * np.array([threshold / (1 - threshold), 1, 1], np.float32)[:, None, None]
        scores = score_masks(
            weighted.argmax(axis=0).astype(np.uint8),
            ground_truth,
            classes=("background", "a", "b"),
            case_id="a",
        )
        found[threshold] = np.mean([s.value for s in scores if s.metric == "dice"])
    assert trials[0].step == "threshold:0.3"
    assert trials[0].gain == pytest.approx(found[0.3] - found[0.5], abs=1e-12)


SPLIT = Split(train=("a",), validation=("b",), test=("c",), origin="seeded", seed=0)


@pytest.mark.parametrize(
    ("settings", "split", "said"),
    [
        (["predict.postprocessing=[fill_holes]"], SPLIT, "one or the other"),
        (["predict.threshold=0.4"], SPLIT, "one or the other"),
        (["data.fold=1"], SPLIT, "scored on"),
        ([], Split(train=("a",), validation=(), test=(), origin="seeded"), "validation cases"),
    ],
)
def test_search_without_suitable_validation_cases_is_rejected(settings, split, said):
    config = load_config(assignments=["predict.search_postprocessing=true", *settings])
    with pytest.raises(UsageError, match=said):
        check_search_settings(config, split)


def test_nothing_is_rejected_without_the_setting():
    check_search_settings(load_config(assignments=["predict.postprocessing=[fill_holes]"]), SPLIT)
