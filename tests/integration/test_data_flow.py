"""How many of our files an image or a case passes through; see `benchmarks/data_flow.py`."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "data_flow.py"


@pytest.fixture(scope="module")
def data_flow() -> ModuleType:
    spec = importlib.util.spec_from_file_location("data_flow", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_image_passes_through_at_most_20_files_from_file_to_mask(
    data_flow: ModuleType, tmp_path: Path
) -> None:
    profile = sys.getprofile()
    files = data_flow.trace_prediction(tmp_path)
    assert sys.getprofile() is profile
    assert "segnetr/engine/inference/predictor.py" in files
    assert not [name for name in files if "quality" in name]
    assert len(files) <= data_flow.MAX_PREDICTION_FILES == 20, files


def test_case_passes_through_at_most_15_files_from_reader_to_batch(
    data_flow: ModuleType, tmp_path: Path
) -> None:
    files = data_flow.trace_batch(tmp_path)
    assert "segnetr/data/loading/loaders.py" in files
    assert len(files) <= data_flow.MAX_BATCH_FILES == 15, files
