"""Count the files of this repository that one image and one training case pass through.

Two numbers are printed, each with its list of files:

- image -> mask: a PNG is opened, predicted and written, as `segnetr predict` does it;
- case -> batch: a case of a dataset is read, cached, augmented and collated, as training does it.

Files of the networks (`segnetr/models`, `hybrid_backbones`) are not counted. Run as

    python benchmarks/data_flow.py

`tests/integration/test_data_flow.py` imports `trace_prediction` and `trace_batch` and enforces the
limits `MAX_PREDICTION_FILES` and `MAX_BATCH_FILES`.
"""

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

MAX_PREDICTION_FILES = 20
MAX_BATCH_FILES = 15

_ROOT = Path(__file__).resolve().parents[1]
_COUNTED = ("segnetr/", "cli/")
_NETWORK = "segnetr/models/"


def trace_files(call: Callable[[], Any]) -> list[str]:
    """Return the files under `segnetr/` and `cli/` whose functions run during a call, sorted.

    Module bodies and class bodies are not counted: they run when a module is first imported, which
    is not part of the data flow. Threads that the call starts are traced as well.
    """
    found: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_flags & _OPTIMIZED:
            found.add(frame.f_code.co_filename)

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    inside = [_relative(name) for name in found]
    return sorted(
        name for name in inside if name.startswith(_COUNTED) and not name.startswith(_NETWORK)
    )


# CO_OPTIMIZED: set for functions, not for the bodies of modules and classes.
_OPTIMIZED = 0x1


def _relative(name: str) -> str:
    path = Path(name)
    return path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else ""


def trace_prediction(folder: Path) -> list[str]:
    """Return the files that a PNG passes through from the file to its mask on the disk.

    Args:
        folder: An empty folder for the model, the image and the mask.
    """
    import numpy as np
    from PIL import Image

    from segnetr.engine.training.signals import SignalHandler
    from segnetr.outputs.masks.output_paths import plan_output_paths
    from segnetr.workflows.prediction.model_folder import open_predictors
    from segnetr.workflows.prediction.options import PredictOptions
    from segnetr.workflows.prediction.pipeline import PredictionPipeline

    write_tiny_model(folder / "model")
    source = folder / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(source)
    card, predictor = open_predictors([folder / "model"], device="cpu")
    out = folder / "masks"
    pipeline = PredictionPipeline(card, predictor, out, PredictOptions())
    plan = plan_output_paths([(source, Path(source.name))], out=out)
    signals = SignalHandler()
    return trace_files(lambda: list(pipeline.run(plan, signals)))


def trace_batch(folder: Path) -> list[str]:
    """Return the files that a case passes through from the reader to its first training batch.

    Args:
        folder: An empty folder for the images, the masks and the cache.
    """
    import numpy as np
    from PIL import Image

    from segnetr.config.schema.segmentation import AugmentConfig, IntensityConfig
    from segnetr.data.augmentation.transforms import training_transform
    from segnetr.data.cache.segmentation import CacheSettings, build_cache
    from segnetr.data.case import Case
    from segnetr.data.loading.loaders import ResumableSampler, training_loader

    generator = np.random.default_rng(0)
    cases = []
    for number in range(2):
        image, mask = folder / f"{number}.png", folder / f"{number}_mask.png"
        pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(image)
        Image.fromarray(np.uint8(pixels[..., 0] > 127) * np.uint8(255)).save(mask)
        cases.append(Case(case_id=str(number), image=image, mask=mask))
    transform = training_transform(
        AugmentConfig(), image_size=(32, 32), intensity=IntensityConfig(), channels=3
    )
    settings = CacheSettings(side=64, channels=3, classes=2)

    def run() -> None:
        cache = build_cache(cases, settings, folder=folder / "cache", workers=0)
        entries = list(cache.entries.values())
        sampler = ResumableSampler(len(entries), batch_size=2, seed=0, steps=1)
        (_,) = training_loader(entries, transform, sampler=sampler, workers=0, seed=0)

    return trace_files(run)


def write_tiny_model(folder: Path) -> None:
    """Write an untrained network of a few thousand weights as a model folder."""
    import torch

    from segnetr.config.schema.segmentation import IntensityConfig, PredictConfig, SegNetrConfig
    from segnetr.models.build import build_model
    from segnetr.outputs.models.model_file import ModelCard, write_model

    torch.manual_seed(0)
    card = ModelCard(
        architecture=SegNetrConfig(width=8, mixing="position"),
        classes=("background", "lesion"),
        in_channels=3,
        image_size=(32, 32),
        intensity=IntensityConfig(),
        predict=PredictConfig(),
    )
    network = build_model(card.architecture, in_channels=3, num_classes=2, image_size=(32, 32))
    write_model(folder, network.state_dict(), card=card)


def main() -> None:
    for title, trace, limit in (
        ("image -> mask", trace_prediction, MAX_PREDICTION_FILES),
        ("case -> batch", trace_batch, MAX_BATCH_FILES),
    ):
        with tempfile.TemporaryDirectory() as folder:
            files = trace(Path(folder))
        print(f"{title}: {len(files)} files (at most {limit})")
        for name in files:
            print(f"  {name}")


if __name__ == "__main__":
    main()
