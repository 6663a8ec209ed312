"""Measure and draw a dataset for the report of `segnetr data check --html`."""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from segnetr.config.schema.segmentation import DataConfig
from segnetr.data.cache.store import run_jobs
from segnetr.data.case import SPLIT_NAMES, Case
from segnetr.data.readers.read_files import read_image
from segnetr.data.splits.split_cases import divide
from segnetr.data.validation.audit import Issue
from segnetr.data.validation.ground_truth import read_case_ground_truth
from segnetr.data.validation.measure import CaseMeasures, measure_case
from segnetr.errors import ReadError
from segnetr.outputs.masks.overlay import draw_overlay
from segnetr.outputs.reports.dataset_report import DatasetReport, write_dataset_report
from segnetr.outputs.reports.figures import Figure
from segnetr.progress import Progress
from segnetr.workflows.datasets.loading import OpenedDataset

MOST_IMAGES = 24
_LONGEST = 320  # longest side of an image of the contact sheet, in pixels
_QUALITY = 85


def write_data_page(
    page: Path,
    opened: OpenedDataset,
    config: DataConfig,
    issues: Sequence[Issue],
    *,
    progress: Progress,
) -> None:
    """Measure all readable cases, draw some of them, and write the page.

    Args:
        page: The file.
        opened: The dataset.
        config: Its settings.
        issues: Issues found by the check.
        progress: Progress display.

    Raises:
        WriteError: If the page cannot be written.
    """
    with progress.task("measure", len(opened.cases)) as advance:
        measured = _measure(opened, config, advance=advance)
    notes = []
    if issues:
        notes.append(f"{len(issues)} issues: training rejects this dataset in its current state.")
    report = DatasetReport(
        title=opened.spec.title,
        subtitle=str(opened.root),
        facts=_describe(opened, config),
        classes=opened.spec.classes,
        measures=[measures for _, measures in measured],
        figures=_draw_sheet(measured, opened, config),
        issues=[(issue.kind, issue.message) for issue in issues],
        notes=notes,
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    write_dataset_report(page, report)


def _measure(
    opened: OpenedDataset, config: DataConfig, *, advance: object
) -> list[tuple[Case, CaseMeasures]]:
    spec, limit = opened.spec, config.max_pixels
    classes, values = len(spec.classes), spec.mask_values
    jobs = {
        row: (case.image, case.mask_files, classes, values, limit, spec.volume_channels)
        for row, case in enumerate(opened.cases)
    }
    found: dict[int, CaseMeasures] = {}
    for done, (row, measures) in enumerate(run_jobs(measure_case, jobs, workers=config.workers)):
        if measures is not None:
            found[row] = measures
        if callable(advance):
            advance(done + 1, len(jobs))
    return [(opened.cases[row], found[row]) for row in sorted(found)]


def _describe(opened: OpenedDataset, config: DataConfig) -> dict[str, str]:
    spec, cases = opened.spec, opened.cases
    split = divide(list({case.case_id: case for case in cases}.values()), config)
    official = Counter(case.split for case in cases if case.split is not None)
    patients = {case.patient_id for case in cases if case.patient_id is not None}
    return {
        "Dataset": f"{spec.title} ({spec.name})",
        "Cases": str(len(cases)),
        "Official split": ", ".join(f"{official[name]} {name}" for name in official) or "none",
        "Split for training": ", ".join(f"{len(split.ids(name))} {name}" for name in SPLIT_NAMES)
        + f" ({split.origin}, sha256 {split.sha256[:16]})",
        "Patients": str(len(patients)) if patients else "not known: each case counts as a patient",
        "Classes": ", ".join(spec.classes),
        "Source": spec.source,
        "License of the data": spec.license,
    }


def _draw_sheet(
    measured: Sequence[tuple[Case, CaseMeasures]], opened: OpenedDataset, config: DataConfig
) -> list[Figure]:
    """Draw cases evenly selected by the share of their foreground, smallest first."""
    ranked = sorted(
        ((case, sum(found.shares[1:])) for case, found in measured if case.mask is not None),
        key=lambda item: (item[1], item[0].case_id),
    )
    count = min(MOST_IMAGES, len(ranked))
    rows = [round(index * (len(ranked) - 1) / max(1, count - 1)) for index in range(count)]
    figures = []
    for number, row in enumerate(rows):
        case, share = ranked[row]
        figure = _draw(case, share, number, opened=opened, config=config)
        if figure is not None:
            figures.append(figure)
    return figures


def _draw(
    case: Case, share: float, number: int, *, opened: OpenedDataset, config: DataConfig
) -> Figure | None:
    spec, limit = opened.spec, config.max_pixels
    try:
        image = read_image(case.image, volume_channels=spec.volume_channels, max_pixels=limit)
        ground_truth = read_case_ground_truth(case, spec, max_pixels=limit).array
    except ReadError:
        return None
    if ground_truth.shape != image.grid:
        return None
    buffer = io.BytesIO()
    overlay = draw_overlay(image, ground_truth, longest=_LONGEST)
    Image.fromarray(overlay).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return Figure(
        name=f"case-{number + 1}",
        title=case.case_id,
        caption=f"{share:.1%} foreground",
        alt=f"{case.case_id} with the outline of its mask, {share:.1%} of the image",
        data=buffer.getvalue(),
    )
