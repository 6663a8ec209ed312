"""`segnetr data audit`, `check` and `split` on synthetic images with duplicates."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from segnetr.data.splits.split import read_split

pytestmark = pytest.mark.slow

TRAIN, TEST = "ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1-2_Test_Input"


@pytest.fixture
def leaky(images: Path, tmp_path: Path) -> Path:
    """A dataset whose first test image is a mirrored, resized training image."""
    folder = tmp_path / "isic2018"
    shutil.copytree(images, folder)
    source = min((folder / TRAIN).glob("*.jpg"))
    target = min((folder / TEST).glob("*.jpg"))
    mask = folder / "ISIC2018_Task1_Test_GroundTruth" / f"{target.stem}_segmentation.png"
    with Image.open(source) as image:
        small = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM).resize((200, 150))
    small.save(target, quality=80)
    Image.new("L", small.size, 0).save(mask)
    return folder


def test_duplicate_in_two_splits_is_one_line_and_exit_code_four(command, leaky):
    where = ["--dataset", "isic2018", "--data-dir", leaky, "--workers", 0]
    done = command("data", "audit", *where, "--quiet")
    assert done.returncode == 4, done.stderr
    line, total = done.stdout.splitlines()
    assert line.startswith("duplicate across splits: mirrored ")
    assert "(isic2018 train)" in line
    assert "(isic2018 test)" in line
    assert "1 duplicate pairs across splits or datasets, 0 in one split" in total
    checked = command("data", "check", *where, "--json")
    assert checked.returncode == 4
    (issue,) = json.loads(checked.stdout)["issues"]
    assert issue["kind"] == "duplicate"


def test_copies_in_another_folder_are_found_and_a_clean_dataset_has_none(command, images, tmp_path):
    where = ["--dataset", "isic2018", "--data-dir", images, "--workers", 0]
    alone = command("data", "audit", *where, "--json")
    assert (alone.returncode, json.loads(alone.stdout)["pairs"]) == (0, [])
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in sorted((images / TRAIN).glob("*.jpg"))[:2]:
        shutil.copy(path, copies)
    twice = ["--against", copies, "--against", f"isic2018={images}"]
    done = command("data", "audit", *where, *twice, "--json")
    assert done.returncode == 4
    outcome = json.loads(done.stdout)
    assert outcome["images"] == 12 + 2 + 12
    assert {pair["kind"] for pair in outcome["pairs"]} == {"identical"}
    assert outcome["leaking_pairs"] == len(outcome["pairs"]) == 12 + 2 + 2
    assert command("data", "audit", *where, "--against", tmp_path / "none").returncode == 2


def test_training_reports_the_duplicates_of_an_earlier_audit(command, leaky, tiny, tmp_path):
    where = ["--dataset", "isic2018", "--data-dir", leaky]
    command("data", "audit", *where, "--workers", 0, "--quiet")
    run = tmp_path / "run"
    done = command("train", *where, *tiny, "--steps", 2, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "1 pairs of duplicate images are in two" in done.stderr
    assert len(json.loads((run / "provenance.json").read_text())["dataset"]["leaks"]) == 1
    assert "scores are too optimistic" in (run / "report.html").read_text().replace("\n", " ")


def test_page_contains_statistics_issues_and_a_contact_sheet_and_no_links(command, leaky, tmp_path):
    page = tmp_path / "deep" / "check.html"
    where = ["--dataset", "isic2018", "--data-dir", leaky, "--workers", 0]
    done = command("data", "check", *where, "--html", page, "--quiet")
    assert done.returncode == 4, done.stderr
    text = page.read_text()
    assert text.count("<figure>") == 12
    assert text.count("data:image/jpeg;base64") == 12
    assert "duplicate: mirrored" in text
    assert "1st percentile of a case" in text
    assert "lesion" in text
    assert 'src="http' not in text
    assert "<script" not in text


def test_written_split_is_the_one_that_training_uses(command, images, trained, tmp_path):
    where = ["--dataset", "isic2018", "--data-dir", images]
    out = tmp_path / "splits.json"
    done = command("data", "split", *where, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert read_split(out) == read_split(trained / "splits.json")
    assert json.loads(done.stdout)["sha256"] == read_split(out).sha256
    fold = command("data", "split", *where, "--out", out, "--fold", 2, "--folds", 3)
    assert fold.returncode == 0, fold.stderr
    assert len(read_split(out).validation) == 3
