"""Images of the best, the median and the worst cases, for people who look before they trust."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segnetr.data.case import Case
from segnetr.engine.evaluation.evaluator import Evaluation
from segnetr.engine.quality.estimator import Quality
from segnetr.outputs.reports.case_comparison import compare_case
from segnetr.outputs.reports.case_selection import SelectedCase, select_cases
from segnetr.outputs.reports.figures import Figure, write_figures
from segnetr.outputs.reports.quality_section import name_alarm, name_badge
from segnetr.outputs.reports.volume_figure import draw_slices
from segnetr.workflows.evaluation.case_predictions import CasePredictor

FOLDER = "figures"


def write_case_images(
    folder: Path,
    cases: Sequence[Case],
    evaluation: Evaluation,
    *,
    model: CasePredictor,
    believed: Mapping[str, Quality],
) -> None:
    """Predict the chosen cases once more and draw them with the outlines of mask and ground truth.

    Args:
        folder: Where the scores lie; the images go into `figures` below it.
        cases: The cases that were scored.
        evaluation: Their scores.
        model: That predicted them.
        believed: What was believed about masks, by case id.
    """
    by_id = {case.case_id: case for case in cases}
    figures = [
        _mark(_draw(pick, by_id[pick.case_id], model), believed.get(pick.case_id))
        for pick in select_cases(evaluation.scores)
    ]
    write_figures(folder / FOLDER, figures)


def _mark(figure: Figure, quality: Quality | None) -> Figure:
    """Put what was believed beside a image."""
    if quality is None:
        return figure
    return replace(figure, badge=name_badge(quality), alarm=name_alarm(quality))


def _draw(pick: SelectedCase, case: Case, model: CasePredictor) -> Figure:
    image, mask = model.open(case)
    labels, ground_truth = model.predictor.predict(image).labels, mask.array
    slices: tuple[bytes, ...] = ()
    if image.kind == "image":
        synthetic, shown = (
            compare_case(image, prediction=labels, ground_truth=ground_truth),
            "beside itself",
        )
    else:
        synthetic, slices = draw_slices(image, prediction=labels, ground_truth=ground_truth)
        shown = "slice by slice"
    return Figure(
        name=f"{pick.rank}-{pick.place}",
        title=f"{pick.rank.capitalize()}: {pick.case_id}",
        caption=f"Dice {pick.value:.3f}",
        alt=f"{pick.case_id} {shown} with the outlines of ground truth and prediction; "
        f"Dice {pick.value:.3f}",
        data=synthetic,
        slices=slices,
    )
