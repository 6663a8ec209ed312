"""Your own folder of images and masks: init, check, train, predict, evaluate."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow


def draw_cells(folder: Path, *, count: int) -> Path:
    """Draw images of bright discs, with one mask file per disc and mask values 0 and 255."""
    rows, columns = np.mgrid[:40, :48]
    for number in range(count):
        draw = np.random.default_rng(number)
        name, image = f"cell{number:02d}", draw.integers(20, 60, (40, 48))
        case = folder / "all" / name
        for kind in ("images", "masks"):
            (case / kind).mkdir(parents=True)
        for disc in range(2):
            row, column = draw.integers(8, 32), 12 + 24 * disc
            inside = (rows - row) ** 2 + (columns - column) ** 2 < 40
            image = np.where(inside, 200, image)
            Image.fromarray(inside.astype(np.uint8) * 255).save(case / "masks" / f"m{disc}.png")
        Image.fromarray(image.astype(np.uint8)).save(case / "images" / f"{name}.png")
    return folder


def test_own_folder_can_be_described_checked_trained_on_and_evaluated(command, tiny, tmp_path):
    folder = draw_cells(tmp_path / "cells", count=8)
    where = ["--dataset", "folder", "--data-dir", folder]
    unknown = command("data", "check", *where)
    assert unknown.returncode == 2
    assert "segnetr data init" in unknown.stderr
    described = command("data", "init", folder, "--json")
    assert described.returncode == 0, described.stderr
    assert json.loads(described.stdout)["description"]["classes"] == ["background", "object"]
    assert command("data", "init", folder).returncode == 2
    checked = command("data", "check", *where, "--workers", 0)
    assert checked.returncode == 0, checked.stdout
    run, shares = tmp_path / "run", ["--set", "data.test_share=0.25"]
    done = command("train", *where, *tiny, *shares, "--steps", 2, "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    scored = json.loads((run / "evaluation" / "summary.json").read_text())
    assert {row["class_name"] for row in scored["summaries"]} >= {"object"}
    assert not scored["unscored"]
    assert list((run / "evaluation" / "figures").iterdir())
    again = command("evaluate", run, *where, "--out", tmp_path / "scores", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["title"].startswith("cells, 8 cases; NOT A TEST SCORE")
    image = next(folder.glob("all/*/images/*.png"))
    assert command("predict", image, "--model", run, "--out", tmp_path / "masks").returncode == 0


def test_each_issue_is_one_line_and_training_refuses_the_dataset(command, tiny, tmp_path):
    folder = draw_cells(tmp_path / "cells", count=4)
    assert command("data", "init", folder).returncode == 0
    masks = sorted(folder.glob("all/*/masks/m1.png"))
    Image.fromarray(np.full((40, 48), 77, np.uint8)).save(masks[0])
    Image.fromarray(np.zeros((30, 48), np.uint8)).save(masks[1])
    where = ["--dataset", "folder", "--data-dir", folder]
    checked = command("data", "check", *where, "--workers", 0, "--quiet")
    assert checked.returncode == 4
    lines = checked.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["mask-values", "size-mismatch", "folder"]
    assert [str(path) in line for path, line in zip(masks, lines, strict=False)][:2] == [True, True]
    refused = command("train", *where, *tiny, "--steps", 2, "--out", tmp_path / "run", "--quiet")
    assert refused.returncode == 4
    assert "2 issues" in refused.stderr
    for path in folder.glob("all/*/masks/*.png"):
        Image.fromarray(np.zeros((40, 48), np.uint8)).save(path)
    empty = command("train", *where, *tiny, "--steps", 2, "--out", tmp_path / "run", "--quiet")
    assert empty.returncode == 4
    assert "has no foreground" in empty.stderr


@pytest.mark.parametrize(
    ("rows", "kind", "word"),
    [
        (["0,p1,train", "1,p1,test", "2,p2,train", "3,p3,test"], "patient-in-two-splits", "p1"),
        (["0,p1,train", "1,p2,train", "2,p3,train", "0,p4,test"], "duplicate-id", "2 cases have"),
    ],
)
def test_table_with_leaking_patients_or_duplicate_ids_is_rejected(
    command, tiny, tmp_path, rows, kind, word
):
    images = sorted(draw_cells(tmp_path, count=4).glob("all/*/images/*.png"))
    lines = ["image,mask,id,patient,split"]
    for row in rows:
        number, patient, split = row.split(",")
        image = images[int(number)].relative_to(tmp_path)
        mask = image.parent.parent / "masks" / "m1.png"
        lines.append(f"{image},{mask},case{number},{patient},{split}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines) + "\n")
    text = (
        "name: cells\npairs: pairs.csv\nclasses: [background, cell]\nchannels: 3\nlicense: none\n"
    )
    (tmp_path / "dataset.yaml").write_text(text)
    where = ["--dataset", "folder", "--data-dir", tmp_path]
    checked = command("data", "check", *where, "--workers", 0, "--quiet")
    assert checked.returncode == 4, checked.stderr
    found = [line for line in checked.stdout.splitlines() if line.startswith(kind)]
    assert found
    assert all(word in line for line in found)
    refused = command("train", *where, *tiny, "--steps", 2, "--out", tmp_path / "run", "--quiet")
    assert refused.returncode == 4
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
