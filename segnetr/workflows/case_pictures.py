"""Pictures of the best, the median and the worst cases, for people who look before they trust."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from segnetr.data.case import Case, DatasetSpec
from segnetr.data.case_truth import read_case_truth
from segnetr.engine.evaluator import Evaluation
from segnetr.engine.predictor import Predictor
from segnetr.engine.quality import Quality
from segnetr.outputs.comparison import compare_case
from segnetr.outputs.figures import Figure, write_figures
from segnetr.outputs.model_file import ModelCard
from segnetr.outputs.picks import Pick, pick_cases
from segnetr.outputs.quality_section import name_alarm, name_badge
from segnetr.outputs.volume_figure import draw_slices
from segnetr.workflows.model_folder import read_for

FOLDER = "figures"


def write_case_pictures(
    folder: Path,
    cases: Sequence[Case],
    evaluation: Evaluation,
    *,
    spec: DatasetSpec,
    card: ModelCard,
    predictor: Predictor,
    believed: Mapping[str, Quality],
    max_pixels: int,
) -> None:
    """Predict the chosen cases once more and draw them with the outlines of mask and truth.

    Args:
        folder: Where the scores lie; the pictures go into `figures` below it.
        cases: The cases that were scored.
        evaluation: Their scores.
        spec: How their masks are read.
        card: Channels of the model.
        predictor: The model.
        believed: What was believed about masks, by case id.
        max_pixels: As in reading.
    """
    by_id = {case.case_id: case for case in cases}
    picks = pick_cases(evaluation.scores)
    figures = [
        _draw(pick, by_id, spec=spec, card=card, predictor=predictor, max_pixels=max_pixels)
        for pick in picks
    ]
    figures = [
        _mark(figure, believed.get(pick.case_id))
        for figure, pick in zip(figures, picks, strict=True)
    ]
    write_figures(folder / FOLDER, figures)


def _mark(figure: Figure, quality: Quality | None) -> Figure:
    """Put what was believed beside a picture."""
    if quality is None:
        return figure
    return replace(figure, badge=name_badge(quality), alarm=name_alarm(quality))


def _draw(
    pick: Pick,
    by_id: Mapping[str, Case],
    *,
    spec: DatasetSpec,
    card: ModelCard,
    predictor: Predictor,
    max_pixels: int,
) -> Figure:
    case = by_id[pick.case_id]
    image = read_for(card, case.image, max_pixels=max_pixels)
    truth = read_case_truth(case, spec, max_pixels=max_pixels).array
    labels = predictor.predict(image).labels
    slices: tuple[bytes, ...] = ()
    if image.kind == "picture":
        drawn, shown = compare_case(image, prediction=labels, truth=truth), "beside itself"
    else:
        drawn, slices = draw_slices(image, prediction=labels, truth=truth)
        shown = "slice by slice"
    return Figure(
        name=f"{pick.rank}-{pick.place}",
        title=f"{pick.rank.capitalize()}: {pick.case_id}",
        caption=f"Dice {pick.value:.3f}",
        alt=f"{pick.case_id} {shown} with the outlines of truth and prediction; "
        f"Dice {pick.value:.3f}",
        data=drawn,
        slices=slices,
    )
