"""Draw the cases with the largest differences: the outlines of every run over the same image."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.readers.read_files import read_image
from segnetr.data.splits.split import read_split
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.engine.training.fold_dir import FoldDir, is_cross_validation
from segnetr.errors import ModelFileError, ReadError, UsageError
from segnetr.metrics import MEAN
from segnetr.metrics.case_values import pair_cases
from segnetr.outputs.reports.case_comparison import compare_predictions
from segnetr.outputs.reports.figures import Figure
from segnetr.progress import Progress
from segnetr.workflows.comparison.runs import ComparedRun
from segnetr.workflows.datasets.loading import OpenedDataset, open_dataset
from segnetr.workflows.prediction.model_folder import open_model_input, open_predictor

_MOST_CASES = 4
_Values = dict[str, dict[str, float]]  # {case: {run: value}}
_Labels = dict[str, dict[str, NDArray[np.uint8]]]  # {case: {run: class indices}}


def draw_differences(
    runs: Sequence[ComparedRun],
    metric: str,
    dataset: str | None,
    data_dir: Path | None,
    *,
    device: str,
    progress: Progress,
) -> tuple[list[Figure], list[str]]:
    """Predict and draw the cases with the largest differences between the runs.

    Args:
        runs: The runs.
        metric: Metric by which the cases are selected.
        dataset: The dataset that was scored; None: the dataset of the runs.
        data_dir: Its folder; None: the folder recorded in the first run.
        device: Device of the networks.
        progress: Progress display.

    Returns:
        At most four images, the largest difference first, and a note if they cannot be drawn.
    """
    values = _collect_values(runs, metric)
    chosen = sorted(values, key=lambda case: (-_range(values[case]), case))[:_MOST_CASES]
    chosen = [case for case in chosen if _range(values[case]) > 0]
    if not chosen:
        return [], []
    try:
        opened = _open(runs[0], dataset, data_dir)
        known = {case.case_id: case for case in opened.cases}
        cases = [known[case_id] for case_id in chosen if case_id in known]
        labels: _Labels = {case.case_id: {} for case in cases}
        with progress.task("draw", len(runs)) as advance:
            for number, run in enumerate(runs, start=1):
                _predict(run, cases, labels, device=device, is_own=dataset is None)
                advance(number, len(runs))
        figures = [
            _draw(
                case,
                labels[case.case_id],
                spec=opened.spec,
                max_pixels=runs[0].config.data.max_pixels,
                name=f"difference-{number}",
                metric=metric,
                values=values[case.case_id],
            )
            for number, case in enumerate(cases, start=1)
        ]
    except (UsageError, ReadError, ModelFileError) as error:
        return [], [f"no images of the differences: {error}"]
    return figures, []


def _collect_values(runs: Sequence[ComparedRun], metric: str) -> _Values:
    """Return the value of each case in each run, without cases that are undefined in both."""
    values: _Values = {}
    first = runs[0]
    for run in runs[1:]:
        pairs = pair_cases(first.table, run.table, metric=metric)
        ours, theirs = pairs.get(MEAN) or next(iter(pairs.values()))
        for case in ours:
            values.setdefault(case, {})[first.name] = ours[case]
            values[case][run.name] = theirs[case]
    return {case: found for case, found in values.items() if len(found) == len(runs)}


def _range(found: dict[str, float]) -> float:
    return max(found.values()) - min(found.values())


def _open(run: ComparedRun, dataset: str | None, data_dir: Path | None) -> OpenedDataset:
    data = run.config.data
    if dataset is not None and dataset != data.dataset:
        data = replace(data, dataset=dataset, data_dir=None)
    if data_dir is not None:
        data = replace(data, data_dir=data_dir)
    return open_dataset(data)


def _predict(
    run: ComparedRun, cases: Sequence[Case], labels: _Labels, *, device: str, is_own: bool
) -> None:
    """Add the labels of one run. Cross-validations predict each case with its own fold."""
    for path, members in _find_models(run.path, cases, is_own=is_own):
        changes = {"tta": run.tta} if run.tta else {}
        card, predictor = open_predictor(path, changes=changes, device=device)
        for case in members:
            image = open_model_input(card, case.image, max_pixels=run.config.data.max_pixels)
            labels[case.case_id][run.name] = predictor.predict(image).labels


def _find_models(
    path: Path, cases: Sequence[Case], *, is_own: bool
) -> list[tuple[Path, list[Case]]]:
    if not (is_cross_validation(path) and is_own):
        return [(path, list(cases))]
    found = []
    for fold in FoldDir(path).models():
        own = set(read_split(fold / "splits.json").validation)
        members = [case for case in cases if case.case_id in own]
        if members:
            found.append((fold, members))
    return found


def _draw(
    case: Case,
    labels: dict[str, NDArray[np.uint8]],
    *,
    spec: DatasetSpec,
    max_pixels: int,
    name: str,
    metric: str,
    values: dict[str, float],
) -> Figure:
    image = read_image(case.image, volume_channels=spec.in_channels, max_pixels=max_pixels)
    ground_truth = read_case_ground_truth(case, spec, max_pixels=max_pixels).array
    shown = "; ".join(f"{run} {value:.3f}" for run, value in values.items())
    return Figure(
        name=name,
        title=f"Largest differences of {metric}: {case.case_id}",
        caption=f"{metric}: {shown}",
        alt=f"{case.case_id} with the outlines of the ground truth and of each run's prediction; "
        f"{metric}: {shown}",
        data=compare_predictions(image, predictions=labels, ground_truth=ground_truth),
    )
