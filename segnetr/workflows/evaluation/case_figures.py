"""Draw the best, the median and the worst cases of an evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segnetr.data.case import Case
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.engine.quality.estimator import Quality
from segnetr.outputs.reports.case_comparison import compare_case
from segnetr.outputs.reports.case_selection import SelectedCase, select_cases
from segnetr.outputs.reports.figures import Figure, write_figures
from segnetr.outputs.reports.quality_section import format_badge, format_warning
from segnetr.outputs.reports.volume_figure import draw_slices
from segnetr.workflows.evaluation.case_predictions import CasePredictor

FOLDER = "figures"


def write_case_images(
    folder: Path,
    cases: Sequence[Case],
    evaluation: Evaluation,
    *,
    model: CasePredictor,
    qualities: Mapping[str, Quality],
) -> None:
    """Predict the selected cases again and draw them with outlines of mask and ground truth.

    Args:
        folder: Folder of the scores; the images are written to `figures` in it.
        cases: The cases that were scored.
        evaluation: Their scores.
        model: The model that predicted them.
        qualities: Predicted quality by case id.
    """
    by_id = {case.case_id: case for case in cases}
    figures = [
        _add_badge(_draw(selected, by_id[selected.case_id], model), qualities.get(selected.case_id))
        for selected in select_cases(evaluation.scores)
    ]
    write_figures(folder / FOLDER, figures)


def _add_badge(figure: Figure, quality: Quality | None) -> Figure:
    """Add the predicted quality to a figure."""
    if quality is None:
        return figure
    return replace(figure, badge=format_badge(quality), alarm=format_warning(quality))


def _draw(selected: SelectedCase, case: Case, model: CasePredictor) -> Figure:
    image, mask = model.open(case)
    labels, ground_truth = model.predictor.predict(image).labels, mask.array
    slices: tuple[bytes, ...] = ()
    if image.kind == "image":
        data = compare_case(image, prediction=labels, ground_truth=ground_truth)
        view = "next to a copy"
    else:
        data, slices = draw_slices(image, prediction=labels, ground_truth=ground_truth)
        view = "slice by slice"
    return Figure(
        name=f"{selected.rank}-{selected.number}",
        title=f"{selected.rank.capitalize()}: {selected.case_id}",
        caption=f"Dice {selected.value:.3f}",
        alt=f"{selected.case_id} {view} with the outlines of ground truth and prediction; "
        f"Dice {selected.value:.3f}",
        data=data,
        slices=slices,
    )
