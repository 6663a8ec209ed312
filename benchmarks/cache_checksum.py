"""Compare the cost of verifying cached copies with the duration of a training step.

Each round reads the copies of one batch with and without verification, and trains one step on such
a batch. Run as

    python benchmarks/cache_checksum.py --image-size 224 --batch-size 8
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segnetr.config.schema.segmentation import SegNetrConfig
from segnetr.data.cache.arrays import CachedArray, open_array
from segnetr.data.cache.segmentation import CachedCase, CacheSettings, build_cache
from segnetr.data.case import Case
from segnetr.losses import build_loss
from segnetr.models.build import build_model


def build_cases(folder: Path, *, count: int, side: int) -> list[CachedCase]:
    """Write and cache random images with masks."""
    generator = np.random.default_rng(0)
    cases = []
    for number in range(count):
        pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        Image.fromarray(pixels).save(image)
        Image.fromarray(np.uint8(pixels[..., 0] > 127)).save(mask)
        cases.append(Case(case_id=str(number), image=image, mask=mask))
    settings = CacheSettings(side=side, channels=3, classes=2)
    return list(build_cache(cases, settings, folder=folder / "cache", workers=0).entries.values())


def time_call(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the share of a step that verification takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    size = (options.image_size, options.image_size)
    model = build_model(
        SegNetrConfig(width=options.width, mixing="position"),
        in_channels=3,
        num_classes=2,
        image_size=size,
    ).train()
    loss = build_loss("dice_ce", num_classes=2)
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.randn(options.batch_size, 3, *size)
    masks = torch.randint(0, 2, (options.batch_size, 1, *size))

    def step() -> None:
        optimizer.zero_grad()
        loss(model(images), masks).backward()
        optimizer.step()

    with tempfile.TemporaryDirectory() as name:
        entries = build_cases(
            Path(name), count=options.batch_size, side=round(1.25 * options.image_size)
        )
        arrays = [array for entry in entries for array in (entry.image, entry.mask)]
        paths = [array.path if isinstance(array, CachedArray) else array for array in arrays]

        def verified() -> None:
            for array in arrays:
                open_array(array, on_repair=print).sum()

        def plain() -> None:
            for path in paths:
                open_array(path, on_repair=print).sum()

        step()
        rows = [
            [time_call(call) for call in (verified, plain, step)] for _ in range(options.rounds)
        ]
    with_check, without, training = (
        statistics.median(column) for column in zip(*rows, strict=True)
    )
    share = (with_check - without) / training
    print(
        f"verification {1000 * (with_check - without):.2f} ms, step {1000 * training:.0f} ms: "
        f"{share:.3%} of a step"
    )


if __name__ == "__main__":
    main()
