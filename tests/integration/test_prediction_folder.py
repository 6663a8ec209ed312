"""A prediction folder: its index is extended, and one process writes to it."""

import csv
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from support.small_models import make_model

import segnetr
from segnetr.config.schema.segmentation import IntensityConfig

HOLD = (
    "import sys, time\n"
    "from pathlib import Path\n"
    "from segnetr.config.shards import Shard\n"
    "from segnetr.progress import Progress\n"
    "from segnetr.workflows.prediction.index import lock_predictions\n"
    "out, number, count = sys.argv[1:]\n"
    "shard = Shard(number=int(number), count=int(count))\n"
    "with lock_predictions(Path(out), shard, Progress()):\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(120)\n"
)


def read_index(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())


def read_rows(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def list_inputs(records: list[dict]) -> list[str]:
    return sorted(Path(record["input"]).name for record in records)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A folder with two other images, one of them damaged."""
    folder = tmp_path / "other"
    folder.mkdir()
    values = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    Image.fromarray(values).save(folder / "x.png")
    (folder / "damaged.png").write_bytes((folder / "x.png").read_bytes()[:-30])
    return folder


def test_second_call_keeps_the_records_of_the_first(command, models, photos, other, tmp_path):
    out = tmp_path / "out"
    base = ["predict", "--model", models[0], "--out", out, "--quiet"]
    assert command(*base, other).returncode == 3
    first = read_index(out)
    assert command(*base, photos).returncode == 0
    index = read_index(out)
    assert index["model"] == first["model"]
    assert "earlier_models" not in index
    assert index["done"][0] == first["done"][0]
    assert len(index["done"]) == 6
    assert index["failed"] == first["failed"]
    assert [row["mask"] for row in read_rows(out)] == [one["mask"] for one in index["done"]]
    # The damaged file is repaired: its failure ends, and no record doubles.
    shutil.copy(other / "x.png", other / "damaged.png")
    assert command(*base, other).returncode == 0
    index = read_index(out)
    assert len({one["mask"] for one in index["done"]}) == len(index["done"]) == 7
    assert index["failed"] == []


def test_records_of_another_model_name_it(command, models, photos, other, tmp_path):
    out = tmp_path / "out"
    base = ["predict", "--out", out, "--quiet", "--model"]
    assert command(*base, models[0], photos).returncode == 0
    first = read_index(out)
    assert command(*base, models[1], other / "x.png").returncode == 0
    index = read_index(out)
    assert index["model"]["sha256"] != first["model"]["sha256"]
    assert index["earlier_models"] == [first["model"]]
    assert [one.get("earlier_model") for one in index["done"]] == [0] * 5 + [None]
    # The first model again: its own masks are kept, the others are not taken for its own.
    again = command(*base, models[0], photos, "--skip-existing", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["skipped"] == 5
    index = read_index(out)
    assert index["model"] == first["model"]
    assert [one.get("earlier_model") for one in index["done"]] == [0] + [None] * 5
    mixed = command(*base, models[0], other / "x.png", "--skip-existing")
    assert mixed.returncode == 2
    assert "its masks were made by another model" in mixed.stderr


def test_replaced_masks_of_other_inputs_are_reported(command, models, photos, tmp_path):
    out = tmp_path / "out"
    base = ["predict", "--model", models[0], "--out", out]
    assert command(*base, photos / "a.png").returncode == 0
    done = command(*base, photos / "sub" / "a.png")
    assert done.returncode == 0
    assert "1 masks of other inputs are replaced, such as a.png" in done.stderr
    assert len(read_index(out)["done"]) == 1


def test_a_foreign_file_with_the_name_of_the_index_is_kept(command, models, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "predictions.json").write_text('{"mine": 1}')
    done = command("predict", photos, "--model", models[0], "--out", out)
    assert done.returncode == 2
    assert "is not an index of predictions" in done.stderr
    assert (out / "predictions.json").read_text() == '{"mine": 1}'
    assert [path.name for path in out.iterdir()] == ["predictions.json"]


def test_shards_extend_an_earlier_index(command, models, photos, other, tmp_path):
    out = tmp_path / "out"
    base = ["predict", "--model", models[0], "--out", out, "--quiet"]
    assert command(*base, other / "x.png").returncode == 0
    for shard in ("1/2", "2/2"):
        assert command(*base, photos, "--shard", shard).returncode == 0
    index = read_index(out)
    assert list_inputs(index["done"]) == ["a.png", "a.png", "b.png", "c.png", "d.png", "x.png"]
    assert len(read_rows(out)) == 6


@pytest.mark.parametrize(
    ("held", "wanted", "is_refused"),
    [
        (("1", "1"), (), True),
        (("1", "1"), ("--shard", "1/2"), True),
        (("1", "2"), (), True),
        (("1", "2"), ("--shard", "1/2"), True),
        (("1", "2"), ("--shard", "2/2"), False),
    ],
)
def test_a_folder_in_use_is_refused_except_for_other_shards(
    command, models, photos, tmp_path, held, wanted, is_refused
):
    out = tmp_path / "out"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(out), *held], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "locked\n"
        done = command("predict", photos, "--model", models[0], "--out", out, "--quiet", *wanted)
    finally:
        holder.kill()
        holder.communicate()
    if is_refused:
        assert done.returncode == 2
        assert f"is in use by process {holder.pid} on {socket.gethostname()}" in done.stderr
        assert not (out / "predictions.json").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert (out / "predictions-2-of-2.json").exists()
    # The holder was killed: its lock is taken over with one line.
    again = command("predict", photos, "--model", models[0], "--out", out)
    assert again.returncode == 0, again.stderr
    if held == ("1", "1"):
        assert f"took over the lock of process {holder.pid}" in again.stderr


def test_model_of_images_flags_a_volume_without_calibration(command, models, tmp_path):
    volume = nib.Nifti1Image(np.zeros((32, 32, 2), np.uint8), np.eye(4))
    nib.save(volume, tmp_path / "v.nii")
    out = tmp_path / "out"
    assert (
        command("predict", tmp_path / "v.nii", "--model", models[0], "--out", out).returncode == 0
    )
    (row,) = read_rows(out)
    assert row["out_of_distribution"] == "yes"
    assert row["reason"] == "a volume, trained on images"


def test_model_of_volumes_flags_an_image_without_calibration(command, photos, tmp_path):
    model = make_model(tmp_path / "m", 0, intensity=IntensityConfig(kind="per_volume"))
    out = tmp_path / "out"
    done = command("predict", photos / "a.png", "--model", model, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "1 out of distribution" in done.stdout
    (row,) = read_rows(out)
    assert row["out_of_distribution"] == "yes"
    assert row["reason"] == "an image, trained on volumes"
    flag = segnetr.load(model, device="cpu").predict(photos / "a.png").ood_flag
    assert flag is not None
    assert flag.is_ood
