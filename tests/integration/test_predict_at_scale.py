"""`segnetr predict` over many files: parts, going on, limits, several models, signals."""

import errno
import hashlib
import json
import os
import signal
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segnetr.engine.inference import label_store, memory
from segnetr.engine.inference.predictor import Predictor


def write_volume(path: Path, shape: tuple[int, int, int]) -> Path:
    values = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


def read_index(out: Path, name: str = "predictions.json") -> dict:
    return json.loads((out / name).read_text())


def list_masks(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*.png")}


def read_masks(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in list_masks(out)}


def test_index_records_the_model_and_the_hash_of_each_input(
    command, models, photos, tmp_path
) -> None:
    (photos / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    done = command("predict", photos, "--model", models[0], "--out", tmp_path / "out", "--quiet")
    assert done.returncode == 3
    index = read_index(tmp_path / "out")
    weights = models[0] / "model" / "model.safetensors"
    assert index["model"]["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert [Path(record["input"]).name for record in index["failed"]] == ["broken.png"]
    assert {record["mask"] for record in index["done"]} == list_masks(tmp_path / "out")
    for record in index["done"]:
        digest = hashlib.sha256(Path(record["input"]).read_bytes()).hexdigest()
        assert record["sha256"] == digest
        assert record["seconds"] >= 0
        assert record["warnings"] == []


def test_shards_cover_all_inputs_and_their_indices_are_merged(
    command, models, photos, tmp_path, monkeypatch
) -> None:
    base = ["predict", photos, "--model", models[0], "--quiet", "--out"]
    assert command(*base, tmp_path / "whole").returncode == 0
    assert command(*base, tmp_path / "parts", "--shard", "1/3").returncode == 0
    assert list_masks(tmp_path / "parts") == {"a.png", "sub/a.png"}
    assert not (tmp_path / "parts" / "predictions.json").exists()
    assert command(*base, tmp_path / "parts", "--shard", "3/3").returncode == 0
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert command(*base, tmp_path / "parts").returncode == 0
    assert read_masks(tmp_path / "parts") == read_masks(tmp_path / "whole")
    part = read_index(tmp_path / "parts", "predictions-2-of-3.json")
    assert [record["mask"] for record in part["done"]] == ["b.png", "sub/d.png"]
    joined, whole = read_index(tmp_path / "parts"), read_index(tmp_path / "whole")
    assert joined["model"] == whole["model"]
    for index in (joined, whole):
        for record in index["done"]:
            del record["seconds"]
    assert joined["done"] == sorted(whole["done"], key=lambda record: record["input"])


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_invalid_shard_is_rejected(command, models, photos, tmp_path, shard) -> None:
    done = command(
        "predict", photos, "--model", models[0], "--out", tmp_path / "o", "--shard", shard
    )
    assert done.returncode == 2
    assert f"--shard {shard}: expected I/N" in done.stderr


def test_existing_results_are_skipped_unless_another_model_made_them(
    command, models, photos, tmp_path
) -> None:
    out = tmp_path / "out"
    base = ["predict", photos, "--out", out, "--quiet", "--model"]
    assert command(*base, models[0]).returncode == 0
    before, index = read_masks(out), read_index(out)
    (out / "b.png").unlink()
    (out / "c.png").write_bytes(b"not looked at")
    done = command(*base, models[0], "--skip-existing", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["skipped"] == 4
    assert (out / "c.png").read_bytes() == b"not looked at"
    assert (out / "b.png").read_bytes() == before["b.png"]
    again = read_index(out)
    assert {record["mask"] for record in again["done"]} == set(before)
    kept = [record for record in index["done"] if record["mask"] != "b.png"]
    assert [record for record in again["done"] if record["mask"] != "b.png"] == kept
    # What is wanted beside the masks is not there yet.
    assert command(*base, models[0], "--skip-existing", "--overlay").returncode == 0
    assert (out / "c.png").read_bytes() == before["c.png"]
    for changed in ([models[1]], [models[0], "--tta", "flips"]):
        other = command(*base, *changed, "--skip-existing")
        assert other.returncode == 2
        assert "its masks were made by another model or with other settings" in other.stderr
    assert read_index(out)["model"] == index["model"]


@pytest.mark.slow
def test_ensemble_does_not_depend_on_how_the_models_are_listed(
    command, models, photos, tmp_path
) -> None:
    base = ["predict", photos, "--quiet", "--out"]
    a, b, c = models
    spoken = command(*base, tmp_path / "one", "--model", a, b, c)
    assert spoken.returncode == 0, spoken.stderr
    repeated = ["--model", a, "--model", b, "--model", c]
    assert command(*base, tmp_path / "two", *repeated).returncode == 0
    assert read_masks(tmp_path / "one") == read_masks(tmp_path / "two")
    index = read_index(tmp_path / "one")
    assert [member["path"] for member in index["model"]["members"]] == [str(a), str(b), str(c)]
    assert len(index["done"]) == 5
    # A image behind a model is an input, not a model.
    behind = ["predict", "--model", a, photos / "a.png", "--out", tmp_path / "three", "--quiet"]
    assert command(*behind).returncode == 0
    for how in ("vote", "soup"):
        done = command(*base, tmp_path / how, "--model", a, b, c, "--ensemble", how)
        assert done.returncode == 0, done.stderr
        assert read_index(tmp_path / how)["model"]["ensemble"] == how
    assert read_masks(tmp_path / "soup") != read_masks(tmp_path / "one")
    wrong = command(*base, tmp_path / "x", "--model", a, b, "--ensemble", "best")
    assert wrong.returncode == 2
    assert "choose mean, vote, soup" in wrong.stderr


def test_written_soup_predicts_like_the_one_made_in_memory(
    command, models, photos, tmp_path
) -> None:
    soup = tmp_path / "soup"
    assert command("models", "soup", *models, "--out", soup).returncode == 0
    base = ["predict", photos, "--quiet", "--out"]
    assert command(*base, tmp_path / "one", "--model", soup).returncode == 0
    mixed = ["--model", *models, "--ensemble", "soup"]
    assert command(*base, tmp_path / "two", *mixed).returncode == 0
    assert read_masks(tmp_path / "one") == read_masks(tmp_path / "two")


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_memory_limit_changes_no_label_or_rejects_the_file(
    command, models, tmp_path, monkeypatch, name
) -> None:
    original, reserved = label_store._reserve, []

    def reserve(file, size):
        reserved.append(size)
        original(file, size)

    # Labels lie on the disk, as those of a large volume do.
    monkeypatch.setattr(label_store, "SPILL_ABOVE", 0)
    monkeypatch.setattr(label_store, "RELEASE_EVERY", 3000)
    monkeypatch.setattr(label_store, "_reserve", reserve)
    path = write_volume(tmp_path / name, (40, 50, 3))
    base = ["predict", path, "--model", models[0], "--quiet", "--overlay", "--out"]
    assert command(*base, tmp_path / "free").returncode == 0
    limited = command(*base, tmp_path / "limited", "--max-memory", "32G", "--tta", "none")
    assert limited.returncode == 0, limited.stderr
    assert reserved == [40 * 50 * 3]
    free, kept = (
        {file.name: file.read_bytes() for file in (tmp_path / where).iterdir()}
        for where in ("free", "limited")
    )
    assert free.keys() == kept.keys()
    assert {file for file in free if free[file] != kept[file]} <= {"predictions.json"}
    assert len(np.unique(np.asanyarray(nib.load(tmp_path / "limited" / name).dataobj))) == 2
    small = command(*base, tmp_path / "small", "--max-memory", "40M")
    assert small.returncode == 2
    assert "before any file is read; give more" in small.stderr
    assert not (tmp_path / "small").exists()
    wrong = command(*base, tmp_path / "wrong", "--max-memory", "much")
    assert wrong.returncode == 2
    assert "'much' is not an amount of memory" in wrong.stderr


def test_file_that_does_not_fit_is_rejected_by_name_and_the_others_are_predicted(
    command, models, tmp_path, monkeypatch
) -> None:
    # What other tests left in this process must not count.
    monkeypatch.setattr(memory, "_read_status", lambda _: 100 << 20)
    large, small = tmp_path / "in" / "large.nii", tmp_path / "in" / "small.nii"
    small.parent.mkdir()
    write_volume(small, (40, 50, 3))
    nib.save(nib.Nifti1Image(np.zeros((256, 256, 260), dtype=np.uint8), np.eye(4)), large)
    base = ["predict", small.parent, "--model", models[0], "--json", "--max-memory", "300M"]
    done = command(*base, "--save-prob", "--out", tmp_path / "out")
    assert done.returncode == 3
    facts = json.loads(done.stdout)
    assert [record["mask"] for record in facts["done"]] == ["small.nii"]
    (refused,) = facts["failed"]
    assert refused["reason"].startswith(f"{large}: at least ")
    assert "more than --max-memory 300 MiB; give more, or leave --save-prob" in refused["reason"]


def test_full_disk_is_reported_in_one_line_and_the_others_are_predicted(
    command, models, tmp_path, monkeypatch
) -> None:
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr(label_store, "SPILL_ABOVE", 40 * 50 * 3)
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    large = write_volume(source / "large.nii", (40, 50, 4))
    write_volume(source / "small.nii", (40, 50, 3))
    done = command(
        "predict", source, "--model", models[0], "--json", "--max-memory", "32G", "--out", out
    )
    assert done.returncode == 3
    facts = json.loads(done.stdout)
    assert [record["mask"] for record in facts["done"]] == ["small.nii"]
    assert [record["reason"] for record in facts["failed"]] == [
        f"{large}: cannot keep its 7.812 KiB of labels in {out}: No space left on device; free "
        "space or choose another --out"
    ]
    assert {file.name for file in out.iterdir()} == {
        "small.nii", "predictions.json", "predictions.csv",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_signal_stops_between_slices_and_skip_existing_continues(
    command, models, photos, tmp_path, monkeypatch, number, code, word
) -> None:
    base = ["predict", photos, "--model", models[0], "--json", "--out"]
    assert command(*base, tmp_path / "whole").returncode == 0
    original, calls = Predictor.predict, []

    def predict(self, image, **options):
        calls.append(image.path.name)
        if len(calls) == 3:
            signal.raise_signal(number)
        return original(self, image, **options)

    monkeypatch.setattr(Predictor, "predict", predict)
    out = tmp_path / "out"
    stopped = command(*base, out)
    assert stopped.returncode == code
    assert json.loads(stopped.stdout)["stopped"] == word
    assert list_masks(out) == {"a.png", "b.png"}
    assert {record["mask"] for record in read_index(out)["done"]} == {"a.png", "b.png"}
    assert not list(out.rglob(".*"))
    assert command(*base, out, "--skip-existing").returncode == 0
    assert read_masks(out) == read_masks(tmp_path / "whole")
    assert len(read_index(out)["done"]) == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_terminated_process_leaves_complete_files_only(start, models, tmp_path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(40):
        write_volume(source / f"v{number:02d}.nii", (64, 64, 12))
    process = start("predict", source, "--model", models[0], "--out", out)
    try:
        while process.poll() is None and len(list(out.glob("v*.nii"))) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143
    finally:
        process.kill()
    masks = sorted(path.name for path in out.glob("v*.nii"))
    assert 2 <= len(masks) < 40
    for name in masks:
        assert np.asanyarray(nib.load(out / name).dataobj).shape == (64, 64, 12)
    assert sorted(record["mask"] for record in read_index(out)["done"]) == masks
    assert sorted(path.name for path in out.iterdir()) == [
        "predictions.csv",
        "predictions.json",
        *masks,
    ]
