"""Measure the cold start of `segnetr predict` of one PNG, `segnetr --help` and `segnetr --version`.

Each command runs several times in a new process with warm file caches; the median is printed.
Targets on two idle cores: 3 s for `predict`, 0.3 s for `--help` and `--version`. Run as

    python benchmarks/cold_start.py --runs 5

`tests/packaging/test_cold_start.py` checks which modules are imported.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from data_flow import write_tiny_model
from PIL import Image

TARGETS = {"predict": 3.0, "--help": 0.3, "--version": 0.3}


def measure(arguments: list[str], *, runs: int) -> float:
    """Return the median number of seconds of a command."""
    seconds = []
    for number in range(runs + 1):
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "segnetr.cli", *arguments], check=True, capture_output=True
        )
        if number:  # the first run fills the file caches
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_model(folder / "model")
        pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "image.png")
        predict = [
            "predict", str(folder / "image.png"), "--model", str(folder / "model"),
            "--out", str(folder / "masks"), "--device", "cpu",
        ]  # fmt: skip
        for arguments in (predict, ["--help"], ["--version"]):
            seconds = measure(arguments, runs=runs)
            print(f"{arguments[0]:10} {seconds:6.2f} s  (target {TARGETS[arguments[0]]} s)")


if __name__ == "__main__":
    main()
