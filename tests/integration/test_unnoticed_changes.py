"""Changed, moved and reused data is noticed: at resume, in the cache, and in evaluations."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from segnetr.data.cache.arrays import open_array
from segnetr.data.cache.segmentation import CacheSettings, build_cache
from segnetr.data.case import Case
from segnetr.data.splits.content import CaseContent, read_content, write_content
from segnetr.engine.training.trainer import Trainer
from segnetr.errors import DataError, ReadError
from segnetr.storage.manifest import MANIFEST_NAME, hash_file, write_manifest
from segnetr.workflows.evaluation.seen_cases import hash_case_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stopped(command, images, tiny, tmp_path_factory):
    """A run that was stopped after its first step, and its data."""
    folder = tmp_path_factory.mktemp("stopped")
    shutil.copytree(images, folder / "data")
    train_step = Trainer._train_step

    def stop(self, batches):
        train_step(self, batches)
        os.kill(os.getpid(), signal.SIGUSR1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_step", stop)
        done = train(command, tiny, folder)
    assert done.returncode == 138, done.stderr
    return folder


@pytest.fixture
def run(stopped, tmp_path):
    """A copy of the stopped run with a copy of its data."""
    for name in ("data", "run"):
        shutil.copytree(stopped / name, tmp_path / name)
    return tmp_path


def train(command, tiny, folder, *more, data="data"):
    return command(
        "train", "--dataset", "isic2018", "--data-dir", folder / data, *tiny, "--steps", 2,
        "--out", folder / "run", *more,
    )  # fmt: skip


def change_image(folder: Path) -> str:
    path = min(folder.rglob("*.jpg"))
    with Image.open(path) as image:
        ImageOps.invert(image.convert("RGB")).save(path)
    return path.stem


def test_resume_with_changed_pixels_is_refused_and_can_be_allowed(command, tiny, run):
    name = change_image(run / "data")
    refused = train(command, tiny, run, "--resume")
    assert refused.returncode == 2
    assert f"1 cases were changed since the start of the run: {name}" in refused.stderr
    assert "Traceback" not in refused.stderr
    before = read_content(run / "run" / "content.json")
    allowed = train(command, tiny, run, "--resume", "--allow-change", "data")
    assert allowed.returncode == 0, allowed.stderr
    (change,) = json.loads((run / "run" / "provenance.json").read_text())["data_changes"]
    assert change["step"] == 1
    assert change["cases"][name]["before"] == list(before.hashes[name])
    assert change["cases"][name]["now"] == list(
        read_content(run / "run" / "content.json").hashes[name]
    )


def test_resume_in_a_moved_folder_trains_and_scores(command, tiny, run):
    shutil.move(run / "data", run / "moved")
    done = train(command, tiny, run, "--resume", data="moved")
    assert done.returncode == 0, done.stderr
    assert (run / "run" / "evaluation" / "summary.json").is_file()
    again = command("evaluate", run / "run", "--split", "validation")
    assert again.returncode == 0, again.stderr


def test_refused_resume_names_each_changed_setting_with_both_values(command, tiny, run):
    done = train(command, tiny, run, "--resume", "--lr", "0.0125", "--seed", "5")
    assert done.returncode == 2
    changes = done.stderr.partition("cannot resume: ")[2].partition("; use the settings")[0]
    assert changes == "train.lr 0.001 -> 0.0125; train.seed 0 -> 5"


def test_run_without_hashes_of_its_cases_can_be_resumed(command, tiny, run):
    (run / "run" / "content.json").unlink()
    for state in run.glob("run/checkpoints/*/state.json"):
        content = json.loads(state.read_text())
        del content["identity"]["content"]
        state.write_text(json.dumps(content))
        (state.parent / MANIFEST_NAME).unlink()
        write_manifest(state.parent)
    done = train(command, tiny, run, "--resume")
    assert done.returncode == 0, done.stderr
    assert read_content(run / "run" / "content.json") is not None


def test_allowing_a_change_requires_a_resumed_run_and_a_known_name(command, tiny, tmp_path):
    for flags in (["--allow-change", "data"], ["--resume", "--allow-change", "model"]):
        done = train(command, tiny, tmp_path, *flags)
        assert done.returncode == 2
        assert "--allow-change" in done.stderr


def test_edited_hashes_are_refused(tmp_path):
    path = tmp_path / "content.json"
    write_content(CaseContent({"a": ("1", "2")}), path)
    assert read_content(path) == CaseContent({"a": ("1", "2")})
    path.write_text(path.read_text().replace('"2"', '"3"'))
    with pytest.raises(DataError, match="changed after it was written"):
        read_content(path)


@pytest.fixture
def cached(tmp_path):
    """A cached pair."""
    values = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray((values[..., 0] > 99).astype(np.uint8)).save(tmp_path / "m.png")
    case = Case(case_id="a", image=tmp_path / "a.png", mask=tmp_path / "m.png")
    settings = CacheSettings(side=32, channels=3, classes=2)
    (entry,) = build_cache([case], settings, folder=tmp_path / "c", workers=0).entries.values()
    return entry


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["image", "mask"])
def test_flipped_bit_in_a_cached_array_is_repaired_with_one_line(cached, name):
    array = getattr(cached, name)
    before = array.path.read_bytes()
    flip(array.path)
    lines: list[str] = []
    open_array(array, on_repair=lines.append)
    assert array.path.read_bytes() == before
    (line,) = lines
    assert "wrong checksum" in line
    assert "decoded again" in line
    open_array(array, on_repair=lines.append)
    assert len(lines) == 1


def test_damaged_copy_of_a_file_that_was_changed_is_an_error(cached, tmp_path):
    flip(cached.image.path)
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ReadError, match="changed while it was in use"):
        open_array(cached.image, on_repair=print)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_with_damaged_copies_gives_the_same_weights(command, tiny, run, workers):
    flags = [*("--set", f"data.cache_dir={run / 'cache'}"), "--workers", workers]
    first = train(command, tiny, run, *flags, "--out", run / "first")
    assert first.returncode == 0, first.stderr
    for path in (run / "cache").rglob("*.npy"):
        flip(path)
    second = train(command, tiny, run, *flags, "--out", run / "second")
    assert second.returncode == 0, second.stderr
    assert "the cached copy was damaged" in second.stderr
    weights = [run / name / "model" / "model.safetensors" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_evaluation_on_seen_cases_is_not_called_a_test_score(command, tiny, run):
    assert train(command, tiny, run, "--resume").returncode == 0
    split = json.loads((run / "run" / "splits.json").read_text())
    seen = {*split["train"], *split["validation"]}
    paths = sorted(path for path in (run / "data").rglob("*.jpg") if path.stem in seen)[:2]
    for kind in ("images", "masks"):
        (run / "own" / kind).mkdir(parents=True)
    # One under another name, one under its own name with other content.
    for number, (path, name) in enumerate(zip(paths, ("renamed", paths[1].stem), strict=True)):
        shutil.copy(path, run / "own" / "images" / f"{name}.jpg")
        mask = next((run / "data").rglob(f"{path.stem}_segmentation.png"))
        shutil.copy(mask, run / "own" / "masks" / f"{name}.png")
        if number:
            with Image.open(path) as image:
                image.save(run / "own" / "images" / f"{name}.jpg", quality=60)
    assert command("data", "init", run / "own").returncode == 0
    evaluate = ["evaluate", run / "run", "--dataset", "folder", "--data-dir", run / "own"]
    done = command(*evaluate)
    assert done.returncode == 0, done.stderr
    assert "NOT A TEST SCORE" in done.stdout.splitlines()[0]
    assert "trained or validated on 2 of these 2 cases" in done.stdout.splitlines()[0]
    (folder,) = (run / "run").glob("evaluation-folder-own-*")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["seen_cases"] == 2
    page = command("report", run / "run", "--out", run / "page.html")
    assert page.returncode == 0
    assert "NOT A TEST SCORE" in (run / "page.html").read_text()
    # Other content in the same folder: the first evaluation stays.
    change_image(run / "own")
    assert command(*evaluate).returncode == 0
    assert len(list((run / "run").glob("evaluation-folder-own-*"))) == 2
    assert json.loads((folder / "summary.json").read_text()) == summary


def test_evaluation_that_scores_nothing_exits_with_3(command, tmp_path):
    for name, size in (("masks", 8), ("expected", 9)):
        (tmp_path / name).mkdir()
        Image.new("L", (size, size)).save(tmp_path / name / "a.png")
    done = command(
        "evaluate", "--predictions", tmp_path / "masks", "--ground-truth", tmp_path / "expected"
    )
    assert done.returncode == 3, done.stdout


def test_run_that_ended_before_its_first_checkpoint_can_be_started_with_other_data(
    command, tiny, run
):
    shutil.rmtree(run / "run" / "checkpoints")
    name = change_image(run / "data")
    old = read_content(run / "run" / "content.json").hashes[name]
    done = train(command, tiny, run)
    assert done.returncode == 0, done.stderr
    assert read_content(run / "run" / "content.json").hashes[name] != old
    assert "data_changes" not in json.loads((run / "run" / "provenance.json").read_text())


def test_cases_are_hashed_without_a_cache_that_can_be_written(tmp_path):
    (tmp_path / "a.png").write_bytes(b"image")
    (tmp_path / "no folder").write_bytes(b"")
    case = Case(case_id="a", image=tmp_path / "a.png")
    content = hash_case_files([case], cache_dir=tmp_path / "no folder")
    assert content.hashes == {"a": (hash_file(tmp_path / "a.png"),)}
