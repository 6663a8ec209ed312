"""The model folder: written by a run, opened by everything that applies a network."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from segnetr import __version__
from segnetr.config.load import parse_plain, plain
from segnetr.config.schema import (
    IntensityConfig,
    ModelConfig,
    PredictConfig,
    RunConfig,
    TrainConfig,
)
from segnetr.data.case import DatasetSpec, Split
from segnetr.engine.predictor import Predictor
from segnetr.engine.run_dir import RunDir
from segnetr.engine.runtime import choose_device
from segnetr.errors import ModelFileError
from segnetr.models.build import build_model
from segnetr.models.fuse import fuse_for_inference
from segnetr.outputs.model_file import ModelCard, read_model, write_model
from segnetr.outputs.provenance import package_versions
