"""`segnetr report` for a classifier: write the HTML report of a run from its files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segnetr.config.schema.classification import ClassifyConfig, load_classify_config
from segnetr.data.case import Split
from segnetr.data.splits.split import read_split
from segnetr.engine.training.logs import read_metrics
from segnetr.engine.training.run_dir import RunDir
from segnetr.outputs.reports.classification_report import (
    ClassificationReport,
    write_classification_report,
)
from segnetr.outputs.tables.classification import read_class_summary
from segnetr.workflows.evaluation.report import (
    count_cases,
    data_license,
    describe_machine,
    describe_split,
    list_issues,
    list_notes,
    note_seen_cases,
    prepare_page,
)


def report_classifier(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run_folder: The run.
        out: Path of the page, or a folder for it; None: `report.html` in the run.

    Returns:
        Path of the page.

    Raises:
        WriteError: If the page cannot be written.
    """
    run = RunDir(run_folder)
    config = load_classify_config([run.config])
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    data = provenance["dataset"]
    path = run.evaluation / "summary.json"
    scored = read_class_summary(path) if path.is_file() else None
    content = ClassificationReport(
        title=f"{config.backbone.name} on {data['title']}",
        subtitle=str(run_folder),
        facts=_describe_data(config, data, read_split(run.splits)),
        summary=scored.summary if scored else None,
        scored=scored.title if scored else "",
        curves=read_metrics(run),
        settings_yaml=run.config.read_text(encoding="utf-8"),
        provenance=describe_machine(provenance),
        issues=list_issues(provenance, scored.unscored if scored else ()),
        notes=[
            *list_notes(provenance, is_scored=scored is not None),
            *note_seen_cases(run),
        ],
    )
    page = prepare_page(out or run.report)
    write_classification_report(page, content)
    return page


def _describe_data(config: ClassifyConfig, data: Mapping[str, Any], split: Split) -> dict[str, str]:
    return {
        "Dataset": f"{data['title']} ({data['name']})",
        "Cases": count_cases(split),
        "Classes": f"{len(data['classes'])}: {', '.join(data['classes'][:20])}"
        + (", ..." if len(data["classes"]) > 20 else ""),
        "Split": describe_split(split),
        **data["facts"],
        "Source": data["source"],
        "License of the data": data_license(data),
        "Network": config.backbone.name,
        "Training size": "{} x {} pixels".format(*config.train.image_size),
        "Best weights by": f"validation {config.train.monitor}",
    }
