import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segnetr.config.schema.segmentation import EvaluateConfig
from segnetr.engine.evaluation.evaluator import evaluate_pairs
from segnetr.engine.evaluation.pairing import MaskPair, pair_folders
from segnetr.errors import UsageError
from segnetr.metrics import select_summary

LESION = ("background", "lesion")
QUICK = EvaluateConfig(bootstrap=50)


def square(side, *, shape=(40, 50)):
    mask = np.zeros(shape, np.uint8)
    mask[5 : 5 + side, 6 : 6 + side] = 1
    return mask


def save(folder, name, mask):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask * 255).save(path)
    return path


def save_volume(path, mask, *, spacing=(1.0, 1.0, 2.0), shift=0.0):
    affine = np.diag([*spacing, 1.0])
    affine[0, 3] = shift
    nib.save(nib.Nifti1Image(mask, affine), path)
    return path


def evaluate(pairs, **options):
    return evaluate_pairs(pairs, classes=LESION, config=QUICK, **options)


def folders(tmp_path, predictions, ground_truths):
    for folder, names in (("p", predictions), ("t", ground_truths)):
        for name in names:
            save(tmp_path / folder, name, square(10))
    return tmp_path / "p", tmp_path / "t"


def test_isic_predictions_match_their_ground_truth_by_name(tmp_path):
    pairs, unscored = pair_folders(
        *folders(
            tmp_path,
            ["ISIC_1.png", "ISIC_2.PNG", "sub/ISIC_1.png", "c_Seg.bmp"],
            ["ISIC_1_segmentation.png", "ISIC_2_Segmentation.bmp", "sub/ISIC_1.png", "C.png"],
        )
    )
    assert [pair.case_id for pair in pairs] == ["C", "ISIC_1", "ISIC_2", "sub/ISIC_1"]
    assert pairs[1].ground_truth.name == "ISIC_1_segmentation.png"
    assert unscored == []


def test_files_with_no_match_or_two_are_named(tmp_path):
    pairs, unscored = pair_folders(
        *folders(
            tmp_path, ["a.png", "b.png", "b.bmp", "only_here.png"], ["a.png", "b.png", "lost.png"]
        )
    )
    assert [pair.case_id for pair in pairs] == ["a"]
    reasons = {case.case_id: case.reason for case in unscored}
    assert "2 masks of one case (b.bmp, b.png)" in reasons["b"]
    assert "lost.png: no prediction of this name" in reasons["lost"]
    assert "only_here.png: no ground truth of this name" in reasons["only_here"]


def test_overlays_and_probabilities_next_to_a_mask_are_ignored(tmp_path):
    pairs, unscored = pair_folders(
        *folders(tmp_path, ["a.png", "a_overlay.png", "a_prob.png", "b_prob.png"],
                 ["a.png", "b_prob.png"])
    )  # fmt: skip
    assert [pair.case_id for pair in pairs] == ["a", "b_prob"]
    assert unscored == []


def test_folders_without_a_common_name_are_rejected(tmp_path):
    with pytest.raises(UsageError, match=r"no mask in .* has the name of one in"):
        pair_folders(*folders(tmp_path, ["a.png"], ["b.png"]))
    with pytest.raises(UsageError, match="no such folder of masks"):
        pair_folders(tmp_path / "p", tmp_path / "nowhere")


def test_masks_on_disk_and_in_memory_have_the_same_scores(tmp_path):
    found, true = square(8), square(10)
    on_disk = MaskPair(
        case_id="a",
        prediction=save(tmp_path, "p.png", found),
        ground_truth=save(tmp_path, "t.png", true),
    )
    in_memory = MaskPair(case_id="a", prediction=found, ground_truth=true)
    assert evaluate([on_disk]).scores == evaluate([in_memory]).scores


def test_volumes_are_scored_in_the_millimeters_of_their_files(tmp_path):
    found, true = np.zeros((2, 12, 12, 9), np.uint8)
    true[3:8, 3:8, 2:6] = 1
    found[3:8, 3:8, 3:7] = 1
    pair = MaskPair(
        case_id="a",
        prediction=save_volume(tmp_path / "p.nii.gz", found),
        ground_truth=save_volume(tmp_path / "t.nii.gz", true),
    )
    assert select_summary(evaluate([pair]).summaries, "hd95_mm").mean == 2.0


def test_spacing_given_with_arrays_is_used():
    pair = MaskPair(case_id="a", prediction=square(8), ground_truth=square(10), spacing=(0.5, 0.5))
    assert {score.metric for score in evaluate([pair]).scores} >= {"hd95_mm", "nsd_2mm"}


def test_a_bad_pair_is_named_and_does_not_stop_the_others(tmp_path):
    good = save(tmp_path, "good.png", square(10))
    (tmp_path / "torn.png").write_bytes(good.read_bytes()[:60])
    pairs = [
        MaskPair(case_id="good", prediction=good, ground_truth=good),
        MaskPair(case_id="torn", prediction=tmp_path / "torn.png", ground_truth=good),
        MaskPair(
            case_id="small",
            prediction=save(tmp_path, "small.png", square(5, shape=(20, 25))),
            ground_truth=good,
        ),
        MaskPair(case_id="good", prediction=good, ground_truth=good),
        MaskPair(case_id="last", prediction=square(3), ground_truth=square(3)),
    ]
    result = evaluate(pairs)
    assert {score.case_id for score in result.scores} == {"good", "last"}
    reasons = [(case.case_id, case.reason) for case in result.unscored]
    assert [case for case, _ in reasons] == ["torn", "small", "good"]
    assert "torn.png" in reasons[0][1]
    assert "small.png: the prediction is 20 x 25, the ground truth 40 x 50" in reasons[1][1]
    assert "already scored" in reasons[2][1]


def test_volumes_on_different_grids_are_not_compared(tmp_path):
    mask = np.ones((6, 6, 6), np.uint8)
    pair = MaskPair(
        case_id="a",
        prediction=save_volume(tmp_path / "p.nii", mask, shift=3.0),
        ground_truth=save_volume(tmp_path / "t.nii", mask),
    )
    result = evaluate([pair])
    assert result.scores == result.summaries == ()
    assert "affine differs from the ground truth's by up to 3" in result.unscored[0].reason


def test_too_large_a_mask_is_rejected_before_it_is_read(tmp_path):
    path = save(tmp_path, "a.png", square(10))
    result = evaluate([MaskPair(case_id="a", prediction=path, ground_truth=path)], max_pixels=100)
    assert "limit of 100" in result.unscored[0].reason


def test_scores_of_a_case_do_not_depend_on_the_other_cases():
    pairs = [
        MaskPair(case_id=f"c{side}", prediction=square(side), ground_truth=square(12))
        for side in range(1, 20, 3)
    ]
    together = evaluate(pairs).scores
    alone = tuple(score for pair in pairs for score in evaluate([pair]).scores)
    assert together == alone


def test_pairs_may_come_from_a_generator_and_patients_widen_the_interval():
    sides = range(2, 22)
    patients = {f"c{side}": f"p{side // 10}" for side in sides}

    def pairs():
        for side in sides:
            yield MaskPair(case_id=f"c{side}", prediction=square(side), ground_truth=square(20))

    alone = select_summary(evaluate(pairs()).summaries, "dice")
    grouped = select_summary(evaluate(pairs(), patients=patients).summaries, "dice")
    assert grouped.mean == alone.mean
    assert grouped.high - grouped.low > alone.high - alone.low
