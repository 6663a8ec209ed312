"""Time the scoring of a large case, and of a smaller one compared with MONAI's functions.

Cases are synthetic: voxels of 0.8 x 0.8 x 1 mm with irregular organs, and predictions with shifted
surfaces. MONAI computes the same four metrics per class (Dice, HD95, average surface distance,
surface Dice) and crops to the structure. It is measured on a smaller case because it takes minutes.
Runs are interleaved, on one thread, in CPU seconds, which other load on the machine affects little.

    python benchmarks/metrics.py
"""

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import monai
import numpy as np
import scipy
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from numpy.typing import NDArray
from scipy import ndimage

from segnetr.metrics import score_masks
from segnetr.outputs.models.provenance import read_git_state, read_processor_name

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "metrics.json"
SPACING = (0.8, 0.8, 1.0)


def draw_case(
    shape: tuple[int, int, int], classes: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a prediction and its ground truth: organ-sized ellipsoids with irregular surfaces."""
    generator = np.random.default_rng(seed)
    ground_truth = np.zeros(shape, np.uint8)
    prediction = np.zeros(shape, np.uint8)
    for index in range(1, classes):
        radii = [generator.uniform(0.04, 0.14) * side for side in shape]
        center = [generator.uniform(0.2, 0.8) * side for side in shape]
        shift = generator.uniform(-3, 3, 3)
        for mask, offset in ((ground_truth, np.zeros(3)), (prediction, shift)):
            place = [c + o for c, o in zip(center, offset, strict=True)]
            box = tuple(
                slice(max(0, int(c - 1.3 * r)), min(side, int(c + 1.3 * r) + 1))
                for c, r, side in zip(place, radii, shape, strict=True)
            )
            axes = np.ogrid[box]
            distance = sum(
                ((axis - c) / r) ** 2 for axis, c, r in zip(axes, place, radii, strict=True)
            )
            noise = ndimage.zoom(
                generator.standard_normal([-(-side // 8) for side in distance.shape]), 8, order=1
            )[tuple(slice(side) for side in distance.shape)]
            mask[box][distance + 0.15 * noise < 1] = index
    return prediction, ground_truth


def time_ours(
    prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8], classes: int
) -> tuple[float, dict[str, list[float | None]]]:
    names = [f"class {index}" for index in range(classes)]
    start = time.process_time()
    scores = score_masks(prediction, ground_truth, classes=names, case_id="case", spacing=SPACING)
    seconds = time.process_time() - start
    metrics = ("dice", "hd95_mm", "assd_mm", "nsd_2mm")
    return seconds, {name: [s.value for s in scores if s.metric == name] for name in metrics}


def time_monai(
    prediction: NDArray[np.uint8], ground_truth: NDArray[np.uint8], classes: int
) -> tuple[float, dict[str, list[float | None]]]:
    found: dict[str, list[float | None]] = {
        name: [] for name in ("dice", "hd95_mm", "assd_mm", "nsd_2mm")
    }
    size = list(SPACING)
    start = time.process_time()
    for index in range(1, classes):
        ours, theirs = (
            torch.from_numpy(mask == index)[None, None].float()
            for mask in (prediction, ground_truth)
        )
        found["dice"].append(compute_dice(ours, theirs).item())
        found["hd95_mm"].append(
            compute_hausdorff_distance(ours, theirs, percentile=95, spacing=size).item()
        )
        found["assd_mm"].append(
            compute_average_surface_distance(ours, theirs, symmetric=True, spacing=size).item()
        )
        found["nsd_2mm"].append(
            compute_surface_dice(ours, theirs, [2.0], spacing=size, include_background=True).item()
        )
    return time.process_time() - start, found


def largest_gap(
    ours: dict[str, list[float | None]], theirs: dict[str, list[float | None]]
) -> dict[str, float]:
    """Return the largest relative difference of each metric over the classes."""
    gaps = {}
    for name, values in ours.items():
        pairs = [(a, b) for a, b in zip(values, theirs[name], strict=True) if a and b]
        gaps[name] = max((abs(a - b) / abs(b) for a, b in pairs), default=0.0)
    return gaps


def measure(
    shape: tuple[int, int, int], *, classes: int, repeats: int, monai_too: bool
) -> dict[str, Any]:
    """Score one synthetic case several times, interleaved with MONAI if requested."""
    prediction, ground_truth = draw_case(shape, classes, seed=0)
    seconds, theirs_seconds = [], []
    found: dict[str, Any] = {"shape": list(shape), "structures": classes - 1}
    for _ in range(repeats):
        taken, ours = time_ours(prediction, ground_truth, classes)
        seconds.append(taken)
        if monai_too:
            taken, theirs = time_monai(prediction, ground_truth, classes)
            theirs_seconds.append(taken)
            found["largest_relative_gap"] = largest_gap(ours, theirs)
    found["seconds"] = round(float(np.median(seconds)), 3)
    if monai_too:
        found["monai_seconds"] = round(float(np.median(theirs_seconds)), 2)
        found["ratio"] = round(found["monai_seconds"] / found["seconds"], 1)
    # Of the whole process so far, including the masks.
    found["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 300))
    parser.add_argument("--monai-shape", type=int, nargs=3, default=(192, 192, 112))
    parser.add_argument("--classes", type=int, default=14, help="background included")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    common = {"classes": arguments.classes, "repeats": arguments.repeats}
    large = measure(tuple(arguments.shape), monai_too=False, **common)
    compared = measure(tuple(arguments.monai_shape), monai_too=True, **common)
    commit, is_changed = read_git_state(ROOT)
    result = {
        "large": large,
        "beside_monai": compared,
        "repeats": arguments.repeats,
        "threads": 1,
        "processor": read_processor_name(),  # words: allow (stored key)
        "commit": commit,
        "changed": is_changed,
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
        },
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
