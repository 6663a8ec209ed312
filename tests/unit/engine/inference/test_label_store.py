"""Labels on the disk: the same labels, in a file without a name, and not in memory."""

import errno
import io
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from torch import Tensor, nn

from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.data.readers.nifti_stream import VolumeFile, open_volume
from segnetr.engine.inference import label_store
from segnetr.engine.inference.label_store import (
    PageRelease,
    allocate_labels,
    count_resident,
    is_worth_a_file,
    walk_planes,
)
from segnetr.engine.inference.memory import MemoryLimit, count_need
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.slice_inferer import BatchPlan
from segnetr.errors import ReadError
from segnetr.outputs.masks.nifti_writer import find_header, write_voxels
from segnetr.outputs.masks.writer import write_prediction

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only with --max-memory")

MIB = 1 << 20


class Bright(nn.Module):
    """Says foreground where it is bright."""

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = image.repeat(1, 2, 1, 1)
        logits[:, 0] *= -1
        return logits


def make_predictor(axis: int = 2, size: int = 32, post: tuple[str, ...] = ()) -> Predictor:
    return Predictor(
        Bright(),
        config=PredictConfig(mode="window", window_batch=2, overlap=0.0, postprocessing=post),
        intensity=IntensityConfig(mean=(0.5,), std=(0.25,)),
        image_size=(size, size),
        num_classes=2,
        channels=1,
        slices=SliceConfig(axis=axis),  # type: ignore[arg-type]
    )


def open_synthetic(path: Path, shape: tuple[int, int, int]) -> VolumeFile:
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    return open_volume(path, max_pixels=10**9)


def count_mapped() -> int:
    """Return the bytes of files that are in this process's memory."""
    words = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return sum(1024 * int(word[1]) for word in words if word[0] in ("RssFile:", "RssShmem:"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_results_are_the_same_byte_for_byte_and_nothing_else_is_in_the_folder(
    axis: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_store, "RELEASE_EVERY", 700)
    volume, out = open_synthetic(tmp_path / "v.nii", (40, 50, 9)), tmp_path / "out"
    out.mkdir()
    predictor = make_predictor(axis)
    written = []
    for spill in (None, out):
        predictor.set_batch_plan(BatchPlan(windows=3, spill=spill))
        found = predictor.predict(volume)
        assert not list(out.iterdir())
        folder = tmp_path / str(spill is None)
        files = write_prediction(found, volume, out=folder, relative=Path("v.nii.gz"), overlay=True)
        written.append([file.read_bytes() for file in files])
        assert 0.2 < found.labels.mean() < 0.8
    assert len(written[0]) == 2
    assert written[0] == written[1]


def test_memory_does_not_grow_with_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_store, "RELEASE_EVERY", MIB // 2)
    predictor = make_predictor(size=256)
    predictor.set_batch_plan(BatchPlan(windows=2, spill=tmp_path))
    peaks = []
    for depth in (16, 160):
        volume = open_synthetic(tmp_path / f"{depth}.nii", (256, 256, depth))
        seen: list[int] = []

        class Meter(io.BytesIO):
            def write(self, data: bytes) -> int:  # type: ignore[override]
                seen.append(count_mapped())  # noqa: B023
                return super().write(data)

        found = predictor.predict(volume, advance=lambda *_: seen.append(count_mapped()))  # noqa: B023
        stream = Meter()
        write_voxels(stream, found.labels, find_header(volume), path=volume.path, level=1)
        assert len(seen) > 2 * depth
        np.testing.assert_array_equal(
            np.frombuffer(stream.getvalue()[-found.labels.size :], dtype=np.uint8),
            found.labels.ravel(order="F"),
        )
        peaks.append(max(seen))
    # 9 MiB of labels lie between them.
    assert peaks[1] - peaks[0] < 3 * MIB


def test_written_pages_are_given_back_and_keep_what_they_hold(tmp_path: Path) -> None:
    labels = allocate_labels((1024, 1024, 12), Path("v.nii"), folder=tmp_path)
    assert not labels.any()
    assert not list(tmp_path.iterdir())
    PageRelease(labels).release()
    start = count_mapped()
    labels[..., :6] = 7
    assert count_mapped() - start > 5 * MIB
    PageRelease(np.moveaxis(labels, -1, 0)[2:]).release()
    assert count_mapped() - start < MIB
    assert [int(plane.min()) for plane in walk_planes(labels)] == [7] * 6 + [0] * 6
    in_memory = allocate_labels((4, 5, 6), Path("v.nii"))
    in_memory[:] = 3
    PageRelease(in_memory).release()
    assert (in_memory == 3).all()


def test_disk_without_room_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(
        ReadError, match=r"v\.nii: cannot keep its 2 MiB of labels in .*: No space left on device;"
    ):
        allocate_labels((1024, 1024, 2), Path("v.nii"), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_disk_that_reserves_nothing_is_filled_with_zeros(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    size = 2 * MIB + 100
    with (tmp_path / "file").open("wb", buffering=0) as file:
        label_store._reserve(file, size)
    assert (tmp_path / "file").read_bytes() == bytes(size)
    labels = allocate_labels((1000, 700, 3), Path("v.nii"), folder=tmp_path)
    labels[999, 699, 2] = 1
    assert labels.sum() == 1


def test_only_large_volumes_that_nothing_needs_as_a_whole_lie_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_worth_a_file((512, 512, 128))
    assert is_worth_a_file((512, 512, 129))
    monkeypatch.setattr(label_store, "SPILL_ABOVE", 64 * 64 * 39)
    monkeypatch.setattr(label_store, "RELEASE_EVERY", 1000)
    volumes = [open_synthetic(tmp_path / f"{d}.nii", (64, 64, d)) for d in (39, 40, 80)]
    for post, expected in (((), [False, True, True]), (("fill_holes",), [False] * 3)):
        limit = MemoryLimit(1 << 40, make_predictor(post=post))
        paces = [limit.choose_batch_plan(volume, spill=tmp_path) for volume in volumes]
        assert [pace.spill == tmp_path for pace in paces] == expected
        assert limit.choose_batch_plan(volumes[2]).spill is None
    needs = [count_need(make_predictor(), v, is_spilled=True).fixed for v in volumes[1:]]
    assert needs[0] == needs[1]
    assert count_need(make_predictor(), volumes[1]).fixed > needs[0]


def test_resident_part_is_counted_by_the_way_planes_are_read() -> None:
    along, across = (count_resident((512, 512, 800), axis) for axis in (2, 0))
    assert along < 5 * MIB
    # A plane is 512 pieces far from each other, each of which brings pages with it.
    assert 64 * MIB < across < 70 * MIB
    assert count_resident((10, 10, 10), 0) == 1000
