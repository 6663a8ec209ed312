"""Run a training with the loaders of `segnetr train`: OUT KILL_AT_STEP WORKERS [--resume].

The cached synthetic cases are written next to OUT.
"""

import sys
from pathlib import Path

import numpy as np
from engine_run import Reporter, make_trainer

from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig, TrainConfig
from segnetr.data.augmentation.transforms import evaluation_transform, training_transform
from segnetr.data.cache.segmentation import CachedCase
from segnetr.data.loading.loaders import ResumableSampler, evaluation_loader, training_loader

CASES, SIZE = 5, (32, 32)
CONFIG = TrainConfig(
    steps=6, batch_size=2, accumulate=2, image_size=32, validate_every=3, save_every=2, device="cpu"
)


def draw_cases(folder: Path) -> list[CachedCase]:
    folder.mkdir(exist_ok=True)
    cases = []
    for number in range(CASES):
        dice = np.random.default_rng(number)
        image, mask = folder / f"{number}_image.npy", folder / f"{number}_mask.npy"
        np.save(image, dice.integers(0, 256, (40, 50, 3), dtype=np.uint8))
        np.save(mask, (dice.random((40, 50)) < 0.3).astype(np.uint8))
        case_id = f"case_{number}"
        cases.append(CachedCase(case_id=case_id, image=image, mask=mask, original_size=(40, 50)))
    return cases


def main() -> None:
    out, kill_at, workers = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    cases = draw_cases(out.parent / "cases")
    intensity = IntensityConfig()
    training = training_transform(
        AugmentConfig(elastic=0.5, dropout=0.5, noise=0.5, blur=0.5),
        image_size=SIZE,
        intensity=intensity,
        channels=3,
    )
    evaluation = evaluation_transform(SIZE, intensity, 3)

    def train_batches(step: int) -> object:
        sampler = ResumableSampler(
            CASES, batch_size=2, seed=0, start_step=step * 2, steps=CONFIG.steps * 2
        )
        return training_loader(cases, training, sampler=sampler, workers=workers, seed=0)

    trainer = make_trainer(
        out,
        CONFIG,
        train_batches=train_batches,
        validation_batches=lambda: evaluation_loader(cases, evaluation, batch_size=2, workers=0),
        progress=Reporter(kill_at_step=kill_at),
    )
    trainer.fit(resume="--resume" in sys.argv)


if __name__ == "__main__":
    main()
