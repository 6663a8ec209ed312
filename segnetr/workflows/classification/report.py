"""`segnetr report` for a classifier: one page about a run, made of the files in the run alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segnetr.config.schema.classification import ClassifyConfig, load_classify_config
from segnetr.data.case import SPLIT_NAMES, Split
from segnetr.data.splits.split import read_split
from segnetr.engine.training.logs import read_metrics
from segnetr.engine.training.run_dir import RunDir
from segnetr.outputs.reports.classification_report import ClassReportContent, write_class_report
from segnetr.outputs.tables.classification import read_class_summary
from segnetr.workflows.evaluation.report import describe_machine


def report_classifier(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the page about a run.

    Args:
        run_folder: The run.
        out: The page, or a folder for it; None: `report.html` in the run.

    Returns:
        The page.

    Raises:
        WriteError: If the page cannot be written.
    """
    run = RunDir(run_folder)
    config = load_classify_config([run.config])
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    data = provenance["dataset"]
    path = run.evaluation / "summary.json"
    scored = read_class_summary(path) if path.is_file() else None
    left_out = [issue["message"] for issue in data["left_out"]]
    notes = [] if scored else ["Nothing was scored: every case was trained on."]
    if left_out:
        notes.append(f"{len(left_out)} issues: these cases were left out of the training.")
    content = ClassReportContent(
        title=f"{config.backbone.name} on {data['title']}",
        subtitle=str(run_folder),
        facts=_describe_data(config, data, read_split(run.splits)),
        summary=scored.summary if scored else None,
        scored=scored.title if scored else "",
        curves=read_metrics(run),
        settings_yaml=run.config.read_text(encoding="utf-8"),
        provenance=describe_machine(provenance),
        issues=left_out + ([case.reason for case in scored.unscored] if scored else []),
        notes=notes,
    )
    page = run.report if out is None else out
    page = page / "report.html" if page.suffix != ".html" else page
    page.parent.mkdir(parents=True, exist_ok=True)
    write_class_report(page, content=content)
    return page


def _describe_data(config: ClassifyConfig, data: Mapping[str, Any], split: Split) -> dict[str, str]:
    counts = ", ".join(f"{len(split.ids(name))} {name}" for name in SPLIT_NAMES)
    return {
        "Data set": f"{data['title']} ({data['name']})",
        "Cases": counts,
        "Classes": f"{len(data['classes'])}: {', '.join(data['classes'][:20])}"
        + (", ..." if len(data["classes"]) > 20 else ""),
        "Split": f"{split.origin}, sha256 {split.sha256[:16]}",
        **data["facts"],
        "Source": data["source"],
        "License of the data": (data.get("license") or data["licence"]),
        "Network": config.backbone.name,
        "Training size": "{} x {} pixels".format(*config.train.image_size),
        "Best weights by": f"validation {config.train.monitor}",
    }
