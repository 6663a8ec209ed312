"""Predict a large volume under a memory limit, compared with MONAI's sliding_window_inference.

Both use the same network, windows, overlap, weights and batch of windows. Runs are interleaved,
each in its own process. Reported are CPU and wall-clock seconds from the file to the labels, peak
resident memory above that of the loaded program, and the share of voxels whose labels differ. Ours
runs under an address-space limit (`--address-space`) and a memory limit (`--max-memory`). MONAI's
runs without limits, slice by slice (as SliceInferer does), once with the default allocator and once
with the allocator setting of `segnetr predict` (segnetr/engine/inference/allocator.py).

    python benchmarks/volumes.py                                      # 512 x 512 x 64, 14 classes
    python benchmarks/volumes.py --shape 512 512 800 --ways ours      # MONAI's needs some 20 GB

Writes benchmarks/results/volumes.json and prints the table.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segnetr.config.memory_sizes import format_size, parse_size
from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.data.readers.nifti_stream import open_volume
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.engine.inference.memory import MemoryLimit
from segnetr.engine.inference.predictor import Predictor
from segnetr.outputs.models.provenance import collect_provenance

RESULTS = Path(__file__).parent / "results" / "volumes.json"
WAYS = ("ours", "monai", "monai, memory kept")
# Both codes use the same intensity window.
LOW, HIGH = -200.0, 1000.0


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    if arguments.way:
        print(json.dumps(measure(arguments)))
        return
    rows: dict[str, list[dict[str, Any]]] = {way: [] for way in arguments.ways}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "volume.nii"
        draw_volume(path, arguments.shape)
        for _ in range(arguments.repeats):
            for way in arguments.ways:
                rows[way].append(run_child(way, path, arguments))
        differing = count_differing([name_labels(path, way) for way in arguments.ways[:2]])
    content = {
        "settings": {
            name: value
            for name, value in vars(arguments).items()
            if name not in ("folder", "out", "way", "path")
        },
        "rows": rows,
        "ratios": compare(rows),
        "labels_that_differ": differing,
        # Without the command, which may contain local paths; the settings state it.
        "made_by": {key: value for key, value in collect_provenance().items() if key != "command"},
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    print(make_table(rows, differing))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 64])
    parser.add_argument("--classes", type=int, default=14)
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--width", type=int, default=16, help="channels of the first level")
    parser.add_argument("--window-batch", type=int, default=4)
    parser.add_argument("--max-memory", default="2G")
    parser.add_argument("--address-space", default="4G", help="0: no limit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="folder for the volume; needs some gigabytes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def draw_volume(path: Path, shape: list[int]) -> None:
    """Write noise with a slope, plane by plane, so that no voxel is constant."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_xyzt_units("mm")
    header.set_sform(np.diag([0.8, 0.8, 1.5, 1.0]), code=1)
    random = np.random.default_rng(0)
    slope = np.add.outer(np.arange(shape[0]), np.arange(shape[1])).astype(np.float32)
    with path.open("wb") as stream:
        header.write_to(stream)
        for depth in range(shape[2]):
            plane = slope + depth + random.normal(0, 100, shape[:2])
            stream.write(plane.astype(np.int16).tobytes(order="F"))


def run_child(way: str, path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one code in a new process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--way", way, "--path", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"failed": done.stderr.strip().splitlines()[-1:], "threads": arguments.threads}
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Predict the volume with one code; return seconds and peak bytes above the start."""
    torch.set_num_threads(arguments.threads)
    network = build_network(arguments)
    with torch.inference_mode():  # one-time setup counts as part of the program
        network(torch.rand(1, 1, arguments.window, arguments.window))
    if arguments.way != "monai":
        tune_malloc(parse_size(arguments.max_memory) if arguments.way == "ours" else None)
    start_bytes = read_status("VmRSS")
    run = predict_ours if arguments.way == "ours" else predict_monai
    clock, cpu = time.perf_counter(), time.process_time()
    labels = run(network, arguments)
    seconds = time.process_time() - cpu
    elapsed = time.perf_counter() - clock
    peak = read_status("VmHWM")
    np.save(name_labels(arguments.path, arguments.way), labels)
    return {
        "seconds": seconds,
        "clock": elapsed,
        "peak": peak,
        "above_start": peak - start_bytes,
    }


def name_labels(path: Path, way: str) -> Path:
    """Return the label file of a code."""
    return path.with_suffix(f".{WAYS.index(way)}.npy")


def build_network(arguments: argparse.Namespace) -> nn.Module:
    """Return a U-Net with random weights."""
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    return UNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=arguments.classes,
        channels=tuple(arguments.width * 2**level for level in range(4)),
        strides=(2, 2, 2),
        norm="batch",
    ).eval()


def predict_ours(network: nn.Module, arguments: argparse.Namespace) -> NDArray[np.uint8]:
    """Read plane by plane, within the memory limit."""
    if arguments.address_space != "0":
        most = parse_size(arguments.address_space)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    predictor = Predictor(
        network,
        config=PredictConfig(
            mode="window", overlap=arguments.overlap, window_batch=arguments.window_batch
        ),
        intensity=IntensityConfig(kind="window", low=LOW, high=HIGH),
        image_size=(arguments.window, arguments.window),
        num_classes=arguments.classes,
        channels=1,
    )
    limit = MemoryLimit(parse_size(arguments.max_memory), predictor)
    volume = open_volume(arguments.path, max_pixels=1 << 40)
    predictor.set_batch_plan(limit.choose_batch_plan(volume))
    return predictor.predict(volume).labels


def predict_monai(network: nn.Module, arguments: argparse.Namespace) -> NDArray[np.uint8]:
    """Read the whole volume, slide windows one voxel deep, and take the argmax at the end."""
    from monai.inferers import sliding_window_inference

    values = np.asanyarray(nib.load(arguments.path).dataobj).astype(np.float32)
    # As our intensity kind "window": 0..1, then mean 0.5 and standard deviation 0.25.
    image = torch.from_numpy(values).sub_(LOW).div_(HIGH - LOW).clamp_(0, 1).sub_(0.5).div_(0.25)

    def estimate(batch: Tensor) -> Tensor:
        probabilities: Tensor = network(batch[..., 0]).softmax(dim=1)
        return probabilities[..., None]

    with torch.inference_mode():
        answer = sliding_window_inference(
            image[None, None],
            roi_size=(arguments.window, arguments.window, 1),
            sw_batch_size=arguments.window_batch,
            predictor=estimate,
            overlap=(arguments.overlap, arguments.overlap, 0.0),
            mode="gaussian",
        )
        return np.asarray(answer[0].argmax(dim=0).to(torch.uint8).numpy())


def count_differing(paths: list[Path]) -> float | None:
    """Return the share of voxels with different labels; None if a code did not finish."""
    if len(paths) < 2 or not all(path.is_file() for path in paths):
        return None
    first, second = (np.load(path, mmap_mode="r") for path in paths)
    differing = sum(int((one != two).sum()) for one, two in zip(first, second, strict=True))
    return differing / first.size


def read_status(field: str) -> int:
    """Return a line of /proc/self/status in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def take_medians(found: list[dict[str, Any]]) -> dict[str, float]:
    """Return the median of each number; empty if a code did not finish."""
    whole = [row for row in found if "failed" not in row]
    keys = ("seconds", "clock", "peak", "above_start")
    return {key: statistics.median(row[key] for row in whole) for key in keys} if whole else {}


def compare(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return the ratio of ours to each peer; empty if one did not finish."""
    medians = {way: take_medians(found) for way, found in rows.items()}
    ours = medians.pop("ours", {})
    return {
        way: {key: ours[key] / theirs[key] for key in theirs}
        for way, theirs in medians.items()
        if ours and theirs
    }


def make_table(rows: dict[str, list[dict[str, Any]]], differing: float | None) -> str:
    """Return the results as Markdown."""
    titles = ("by", "CPU, s", "clock, s", "peak", "above the loaded program")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for way, found in rows.items():
        middle = take_medians(found)
        if not middle:
            lines.append(f"| {way} | did not finish: {found[0]['failed']} | | | |")
            continue
        sizes = [format_size(round(middle[key])) for key in ("peak", "above_start")]
        cells = [f"{middle['seconds']:.2f}", f"{middle['clock']:.1f}", *sizes]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    for way, ratios in compare(rows).items():
        shares = ", ".join(f"{key} {ratio:.3f}" for key, ratio in ratios.items())
        lines.append(f"\nours / {way}: {shares}")
    if differing is not None:
        lines.append(f"\nlabels that differ: {differing:.2e} of all voxels")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
