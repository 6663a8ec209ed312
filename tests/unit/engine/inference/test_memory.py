"""A memory limit is a promise: what fits completes below it, what does not is refused before."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segnetr.config.memory_sizes import format_size, parse_size
from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.read_files import read_image
from segnetr.engine.inference import memory
from segnetr.engine.inference.memory import MemoryLimit, count_need, list_batch_plans
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.slice_inferer import BatchPlan
from segnetr.errors import ReadError, UsageError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

# Predicts a volume under an address-space limit as narrow as the promise, and says what it took.
CHILD = """
import json, resource, sys
from pathlib import Path
import nibabel, numpy as np, torch
from torch import nn
from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig
from segnetr.data.readers.nifti_stream import open_volume
from segnetr.engine.inference import label_store
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.inference.memory import MemoryLimit
from segnetr.engine.inference.predictor import Predictor
from segnetr.outputs.masks.writer import write_prediction

label_store.SPILL_ABOVE, label_store.RELEASE_EVERY = 0, 1 << 18

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])

out, extra, paths = Path(sys.argv[1]), int(sys.argv[2]), [Path(word) for word in sys.argv[3:]]
torch.set_num_threads(1)
torch.manual_seed(3)
predictor = Predictor(
    nn.Conv2d(1, 14, 3, padding=1),
    config=PredictConfig(mode="window", overlap=0.25, window_batch=64),
    intensity=IntensityConfig(kind="percentiles"),
    image_size=(128, 128), num_classes=14, channels=1,
)
torch.zeros(1).exp()
start = status("VmRSS")
# As much address space as the promise leaves, and not a page more.
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + extra,) * 2)
tune_malloc(start + extra)
limit = MemoryLimit(start + extra, predictor)
peaks = []
for path in paths:
    volume = open_volume(path, max_pixels=10**9)
    pace = limit.choose_batch_plan(volume, spill=out)
    assert pace.spill == out
    predictor.set_batch_plan(pace)
    prediction = predictor.predict(volume)
    write_prediction(prediction, volume, out=out, relative=Path(path.name))
    peaks.append(status("VmHWM") - start)
    del prediction
try:
    np.ones((14, *volume.grid), dtype=np.float32)
except MemoryError:
    refused = True
else:
    refused = False
print(json.dumps({"peaks": peaks, "windows": pace.windows, "refused": refused}))
"""


def run_child(paths: list[Path], out: Path, *, extra: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(out), str(extra), *map(str, paths)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def write_volume(path: Path, depth: int) -> Path:
    random = np.random.default_rng(depth)
    values = random.integers(0, 1000, (256, 256, depth)).astype(np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_volume_completes_within_the_promise_where_its_probabilities_would_not_fit(
    tmp_path: Path,
) -> None:
    room = 140 << 20
    path = write_volume(tmp_path / "deep.nii.gz", 48)
    shallow = write_volume(tmp_path / "shallow.nii.gz", 6)
    out = tmp_path / "out"
    out.mkdir()
    limited = run_child([shallow, path], out, extra=room)
    assert limited["refused"]  # 168 MiB of probabilities: the limit is real
    peak_of_shallow, peak = limited["peaks"]
    assert peak <= room
    assert limited["windows"] < 64
    assert peak - peak_of_shallow < 12 << 20
    assert {file.name for file in out.iterdir()} == {"shallow.nii.gz", "deep.nii.gz"}
    torch.manual_seed(3)
    free = Predictor(
        nn.Conv2d(1, 14, 3, padding=1),
        config=PredictConfig(mode="window", overlap=0.25, window_batch=64),
        intensity=IntensityConfig(kind="percentiles"),
        image_size=(128, 128),
        num_classes=14,
        channels=1,
    ).predict(read_image(path))
    found = np.asanyarray(nib.load(out / "deep.nii.gz").dataobj)
    assert len(np.unique(found)) > 2
    assert (found != free.labels).mean() < 1e-5  # exact ties aside


class Point(nn.Module):
    """The cheapest network there is."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layer(image)
        return logits


def make_predictor(**changes: Any) -> Predictor:
    model = changes.pop("model", None) or Point()
    settings = {"mode": "window", "window_batch": 8, **changes}
    return Predictor(
        model,
        config=PredictConfig(**settings),
        intensity=IntensityConfig(mean=(0.0,), std=(1.0,)),
        image_size=(32, 32),
        num_classes=3,
        channels=1,
        slices=SliceConfig(),
    )


def volume(*shape: int) -> ImageFile:
    array = np.broadcast_to(np.zeros(1, dtype=np.uint8), shape)
    return ImageFile(path=Path("big.nii"), array=array, kind="volume", affine=np.eye(4))


def test_amounts_of_memory_are_read_as_people_write_them() -> None:
    assert parse_size("2G") == parse_size("2 GiB") == parse_size("2gb") == 2 << 30
    assert parse_size("1.5M") == 3 << 19
    assert parse_size("4096") == 4096
    assert format_size(3 << 29) == "1.5 GiB"
    assert format_size(12) == "12 bytes"
    for wrong in ("", "G", "-1G", "2X", "0", "0.0001", "1e9", "nan", "2G2"):
        with pytest.raises(UsageError, match="expected 2G, 800M"):
            parse_size(wrong)


def test_room_enough_leaves_the_configured_batch_and_less_room_a_smaller_one() -> None:
    predictor = make_predictor(tta="d4")
    limit = MemoryLimit(1 << 40, predictor)
    assert limit.choose_batch_plan(volume(64, 64, 4)).windows == 8
    plans = list_batch_plans(predictor.networks)
    assert [(plan.windows, plan.tta_batch) for plan in plans] == [
        *((1, tta_batch) for tta_batch in (1, 2, 4, 8)), *((windows, 8) for windows in (2, 4, 8)),
    ]  # fmt: skip
    assert [plan for plan, _ in limit._measured] == plans
    limit._measured = [(plan, plan.windows * plan.tta_batch << 20) for plan in plans]
    fixed = count_need(predictor, volume(64, 64, 4)).fixed
    for plan, taken in limit._measured:
        limit._limit = limit._loaded + int(1.1 * (fixed + taken)) + (24 << 20) + 10
        chosen = limit.choose_batch_plan(volume(64, 64, 4))
        assert (chosen.windows, chosen.tta_batch) == (plan.windows, plan.tta_batch)


def test_rehearsal_stops_before_it_breaks_the_promise_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hungry(Point):
        """Takes 8 MiB for each image, in a process that takes 100 MiB by itself."""

        most = 0

        def forward(self, image: Tensor) -> Tensor:
            self.most = max(self.most, len(image))
            return super().forward(image)

    model = Hungry()

    def read_status(field: str) -> int:
        return (100 << 20) + (model.most * 8 << 20 if field == "VmHWM" else 0)

    monkeypatch.setattr(memory, "_read_status", read_status)
    limit = MemoryLimit(300 << 20, make_predictor(window_batch=1024, model=model))
    assert model.most == 16  # 32 would take 100 + 24 + 1.1 * 256 MiB
    assert limit.choose_batch_plan(volume(64, 64, 4)).windows == 16
    with pytest.raises(UsageError, match="takes 228 MiB before any file is read"):
        MemoryLimit(200 << 20, make_predictor(window_batch=4, model=model))


def test_file_that_cannot_fit_is_refused_by_name_with_what_it_needs() -> None:
    limit = MemoryLimit(1 << 33, make_predictor())
    limit.choose_batch_plan(volume(512, 512, 800))
    with pytest.raises(ReadError, match=r"big\.nii: at least .* GiB of memory are needed for it"):
        limit.choose_batch_plan(volume(512, 512, 800), keep_probabilities=True)
    with pytest.raises(ReadError, match=r"x\.png: at least .* to decode its 4000000000 pixels"):
        limit.check_image(Path("x.png"), 4_000_000_000)
    limit.check_image(Path("x.png"), 1_000_000)


def test_limit_below_the_program_itself_is_refused_before_any_file() -> None:
    with pytest.raises(UsageError, match=r"--max-memory 30 MiB: the program .* takes .* give more"):
        MemoryLimit(30 << 20, make_predictor())


@pytest.mark.slow
def test_memory_that_was_taken_and_freed_before_is_not_counted() -> None:
    held = memory._read_status("VmRSS")
    np.ones(1 << 30, dtype=np.uint8)
    assert memory._read_status("VmHWM") > held + (900 << 20)
    MemoryLimit(held + (500 << 20), make_predictor())


def test_need_does_not_grow_with_depth_beyond_the_labels() -> None:
    predictor = make_predictor()
    needs = [count_need(predictor, volume(512, 512, depth)).fixed for depth in (1, 801)]
    # Labels, and what a file in memory takes: the array itself, scaled, and copied.
    per_voxel = (needs[1] - needs[0]) / (800 * 512 * 512)
    assert per_voxel < 40
    repaired = make_predictor(postprocessing=("largest_component",))
    assert (
        count_need(repaired, volume(64, 64, 9)).fixed
        - count_need(predictor, volume(64, 64, 9)).fixed
        >= 8 * 64 * 64 * 9
    )


def test_pace_of_one_view_at_a_time_gives_the_same_answer() -> None:
    torch.manual_seed(0)
    predictor = make_predictor(tta="d4")
    random = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    file = ImageFile(path=Path("a.nii"), array=random, kind="volume", affine=np.eye(4))
    together = predictor.predict(file, keep_probabilities=True).probabilities
    predictor.set_batch_plan(BatchPlan(windows=1, tta_batch=1))
    alone = predictor.predict(file, keep_probabilities=True).probabilities
    assert together is not None
    assert alone is not None
    np.testing.assert_allclose(alone, together, atol=1e-6)
