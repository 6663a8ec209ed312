"""Compare predicted and true Dice, and count out-of-distribution flags, on held-out real images.

A network is trained on 18 dermoscopy images and calibrated on 12 (experiment/isic_quality). Then
it predicts images from other sources with known masks, and images of other kinds.

    python benchmarks/quality.py --data DIR     (DIR holds isic2018_layout, isic2017, ham10000, ...)

Writes benchmarks/results/quality.json and prints the tables.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

RECIPE = "experiment/isic_quality"
RESULTS = Path(__file__).parent / "results" / "quality.json"
HAM = """\
name: ham10000
images: images/{id}.*
masks: masks/{id}_segmentation.*
classes: [background, lesion]
channels: 3
spatial_dims: 2
license: CC BY-NC 4.0
"""


def main() -> None:
    """Train, predict, and print the tables."""
    arguments = parse_arguments()
    run = arguments.run or arguments.out / "run"
    if not (run / "model").is_dir():
        call("train", "--config", RECIPE, "--data-dir", arguments.data / "isic2018_layout",
             "--out", run, "--quiet")  # fmt: skip
    ham = lay_out_ham(arguments.data / "ham10000", arguments.out / "ham10000")
    sets = {"ham10000": ("folder", ham), "isic2017": ("isic2017", arguments.data / "isic2017")}
    judged = {
        name: score(name, run, dataset, folder, arguments.out)
        for name, (dataset, folder) in sets.items()
        if name in arguments.sets
    }
    judged["together"] = [case for cases in judged.values() for case in cases]
    scored = [compare(name, cases) for name, cases in judged.items()]
    flagged = [
        flag(name, run, folder, arguments.out)
        for name, folder in gather_images(arguments.data, arguments.out / "images")
    ]
    content = {
        "calibration": read_calibration(run),
        "scored": scored,
        "flagged": flagged,
        "seconds": time_costs(run, ham / "images"),
    }
    write_results(content)
    print(make_tables(content))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    default = Path(os.environ.get("SEGNETR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-quality"))
    parser.add_argument("--run", type=Path, help="a trained run, instead of training one")
    parser.add_argument("--sets", nargs="+", default=["ham10000", "isic2017"])
    return parser.parse_args()


def call(*words: object) -> str:
    """Run a `segnetr` command."""
    command = [sys.executable, "-m", "segnetr.cli", *map(str, words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def lay_out_ham(source: Path, target: Path) -> Path:
    """Copy the images with masks into a folder with a `dataset.yaml`."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    (target / "masks").mkdir(exist_ok=True)
    for mask in sorted((source / "HAM10000_segmentations_lesion_tschandl").glob("*.png")):
        name = mask.name.removesuffix("_segmentation.png") + ".jpg"
        shutil.copyfile(mask, target / "masks" / mask.name)
        shutil.copyfile(source / "HAM10000_images_part_1" / name, target / "images" / name)
    (target / "dataset.yaml").write_text(HAM)
    return target


def score(name: str, run: Path, dataset: str, folder: Path, out: Path) -> list[Any]:
    """Score a dataset and return the true and predicted Dice of each case."""
    from segnetr.outputs.reports.quality_section import pair_quality
    from segnetr.outputs.tables.case_records import read_case_records
    from segnetr.outputs.tables.scores import read_per_case_csv

    place = out / f"evaluation-{name}"
    call("evaluate", run, "--dataset", dataset, "--data-dir", folder, "--out", place, "--quiet")
    scores = read_per_case_csv(place / "per_case.csv")
    return pair_quality(scores, read_case_records(place / "cases.json"))


def compare(name: str, judged: list[Any]) -> dict[str, Any]:
    """Compare predicted with true Dice."""
    from segnetr.outputs.reports.quality_section import measure_quality_agreement

    found = measure_quality_agreement(judged)
    return {
        "set": name,
        "cases": found.cases,
        "dice": float(np.mean([case.dice for case in judged])),
        "predicted": float(np.mean([case.quality.dice for case in judged])),
        "spearman": found.spearman,
        "spearman_interval": resample(judged),
        "error": found.error,
        "level": found.level,
        "held": found.coverage,
        "flagged": found.out_of_distribution,
        "pairs": [
            [case.case_id, round(case.quality.dice, 4), round(case.dice, 4)] for case in judged
        ],
    }


def resample(judged: list[Any], rounds: int = 2000) -> list[float]:
    """Return the 95 % bootstrap interval of the rank correlation."""
    from segnetr.engine.quality.rank_correlation import correlate_ranks

    source = np.random.default_rng(0)
    pairs = np.array([(case.quality.dice, case.dice) for case in judged])
    synthetic = (pairs[source.integers(len(pairs), size=len(pairs))] for _ in range(rounds))
    found = [correlate_ranks(each[:, 0].tolist(), each[:, 1].tolist()) for each in synthetic]
    known = [value for value in found if value is not None]
    return [float(end) for end in np.percentile(known, (2.5, 97.5))]


def gather_images(data: Path, out: Path) -> Iterator[tuple[str, Path]]:
    """Return folders of images: held-out dermoscopy and other kinds."""
    yield "dermoscopy, HAM10000", data / "ham10000" / "HAM10000_images_part_1"
    yield "dermoscopy, ISIC 2017", data / "isic2017" / "ISIC-2017_Validation_Data"
    volumes = {
        "MR slices of hearts": sorted(data.glob("acdc/ACDC/database/*/*/*_frame0?.nii.gz"))[:40],
        "MR slices of brains": sorted(data.glob("msd_hippocampus/*/imagesTr/h*.nii.gz"))[:40],
        "CT slices": sorted(data.glob("ct_totalseg/example_ct*.nii.gz")),
    }
    for name, files in volumes.items():
        yield name, draw_slices(files, out / name.replace(" ", "_"), every=len(files) < 5)
    yield "breast ultrasound", data / "ultrasound_tnscui_layout" / "train" / "image"
    nuclei = out / "nuclei"
    nuclei.mkdir(parents=True, exist_ok=True)
    for path in sorted(data.glob("dsb2018/stage1_train/*/images/*.png")):
        shutil.copyfile(path, nuclei / path.name)
    yield "microscopy of nuclei", nuclei


def draw_slices(files: list[Path], out: Path, *, every: bool) -> Path:
    """Write middle slices as 8-bit images, the darkest value 0 and the brightest 255."""
    out.mkdir(parents=True, exist_ok=True)
    for path in files:
        values = np.asarray(nib.load(path).dataobj, dtype=np.float64)
        depth = values.shape[2]
        for index in range(0, depth, max(1, depth // 12)) if every else [depth // 2]:
            plane = values[:, :, index].T
            scaled = (plane - plane.min()) / max(np.ptp(plane), 1e-9)
            name = f"{path.name.removesuffix('.nii.gz')}_{index}.png"
            Image.fromarray(np.rint(255 * scaled).astype(np.uint8)).save(out / name)
    return out


def flag(name: str, run: Path, folder: Path, out: Path) -> dict[str, Any]:
    """Predict a folder and count the images flagged as out of distribution."""
    place = out / "masks" / name.replace(" ", "_")
    call("predict", folder, "--model", run, "--out", place, "--quiet")
    records = json.loads((place / "predictions.json").read_text())["done"]
    judged = [record["quality"] for record in records]
    unlike = [quality for quality in judged if quality["out_of_distribution"]]
    reasons = [reason.split()[0] for quality in unlike for reason in quality["reasons"]]
    return {
        "images": name,
        "count": len(judged),
        "flagged": len(unlike),
        "by": {kind: reasons.count(kind) for kind in sorted(set(reasons))},
        "median_novelty": float(np.median([quality["ood_score"] for quality in judged])),
    }


def time_costs(run: Path, folder: Path, rounds: int = 5) -> dict[str, float]:
    """Return CPU seconds per image with and without quality estimation, interleaved."""
    from segnetr.workflows.prediction.model_folder import open_predictor, read_for

    plain = open_predictor(run, changes={"quality": False}, device="cpu")[1]
    card, judging = open_predictor(run, device="cpu")
    images = [read_for(card, path, max_pixels=10**8) for path in sorted(folder.iterdir())[:10]]
    passed: dict[str, list[float]] = {"plain": [], "judging": [], "maps": []}
    for _ in range(rounds):
        for name, predictor in (("plain", plain), ("judging", judging), ("maps", judging)):
            start = time.process_time()
            for image in images:
                predictor.predict(image, keep_uncertainty=name == "maps")
            passed[name].append((time.process_time() - start) / len(images))
    return {name: float(np.median(each)) for name, each in passed.items()}


def read_calibration(run: Path) -> dict[str, Any]:
    """Return the fitted quality model."""
    from segnetr.engine.quality.rank_correlation import correlate_ranks
    from segnetr.outputs.models.quality_file import read_quality

    model = read_quality(run)
    pairs = [(case.predicted, case.dice) for case in model.cases]
    return {
        "steps": json.loads((run / "timings.json").read_text())["steps"],
        "cases": len(pairs),
        "temperature": model.temperature,
        "interval_level": model.interval_level,
        "radius": model.radius,
        "penalty": model.regression.penalty,
        "spearman_left_out": correlate_ranks(*map(list, zip(*pairs, strict=True))),
    }


def make_tables(content: dict[str, Any]) -> str:
    """Return the tables."""
    lines = [
        "| held out | cases | true Dice | predicted | Spearman | 95 % | error | interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in content["scored"]:
        low, high = row["spearman_interval"]
        lines.append(
            f"| {row['set']} | {row['cases']} | {row['dice']:.3f} | {row['predicted']:.3f} "
            f"| {row['spearman']:.2f} | {low:.2f} to {high:.2f} | {row['error']:.3f} "
            f"| {row['held']:.0%} of {row['level']:.0%} |"
        )
    lines += ["", "| images | count | flagged | by |", "|---|---|---|---|"]
    for row in content["flagged"]:
        by = ", ".join(f"{kind} {count}" for kind, count in row["by"].items())
        lines.append(f"| {row['images']} | {row['count']} | {row['flagged']} | {by} |")
    return "\n".join([*lines, "", json.dumps(content["seconds"])])


def write_results(content: dict[str, Any]) -> None:
    """Write the figures with the versions and settings behind them."""
    from segnetr.outputs.models.provenance import collect_provenance

    about = {
        "command": "python benchmarks/quality.py",
        "recipe": RECIPE,
        **content,
        # The command contains local paths.
        "made_by": {key: v for key, v in collect_provenance().items() if key != "command"},
        "written": time.strftime("%Y-%m-%d"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
