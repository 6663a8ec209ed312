"""`segnetr report`: one page about a run, made of the files in the run alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybrid_backbones import get_spec, list_models
from segnetr.config.load import load_config
from segnetr.config.schema.postprocessing import PostprocessingTrial
from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.case import SPLIT_NAMES, Split
from segnetr.data.splits.split import read_split
from segnetr.engine.training.logs import read_metrics
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError
from segnetr.outputs.models.model_file import read_card
from segnetr.outputs.reports.case_section import read_case_section
from segnetr.outputs.reports.figures import read_figures
from segnetr.outputs.reports.run_report import ReportContent, write_report
from segnetr.outputs.tables.scores import SummaryFile, read_summary_json
from segnetr.progress import format_seconds
from segnetr.storage.manifest import as_write_error
from segnetr.workflows.evaluation.case_figures import FOLDER
from segnetr.workflows.evaluation.evaluate import choose_part

_MACHINE = ("started", "platform", "processor", "cores", "threads", "device", "git_commit")


def report(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the page about a run.

    Args:
        run_folder: The run.
        out: The page, or a folder for it; None: `report.html` in the run.

    Returns:
        The page.

    Raises:
        UsageError: If the folder is no run.
        WriteError: If the page cannot be written.
    """
    run = RunDir(run_folder)
    if not run.config.is_file():
        raise UsageError(f"{run_folder}: no run (config.yaml is missing)")
    config = load_config([run.config])
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    summary = run.evaluation / "summary.json"
    scored = read_summary_json(summary) if summary.is_file() else None
    trials = read_card(run.path).postprocessing_trials if run.model.is_dir() else ()
    content = ReportContent(
        title=f"{config.model.architecture} on {provenance['dataset']['title']}",
        subtitle=str(run_folder),
        facts={
            **describe_data(config, provenance, read_split(run.splits)),
            **describe_timings(run),
        },
        summaries=() if scored is None else scored.summaries,
        scored="" if scored is None else scored.title,
        curves=read_metrics(run),
        figures=read_figures(run.evaluation / FOLDER),
        settings_yaml=run.config.read_text(encoding="utf-8"),
        provenance=describe_machine(provenance),
        issues=list_issues(provenance, scored),
        notes=[*list_notes(provenance, scored), *_note_reuse(run, trials)],
        cases=read_case_section(run.evaluation),
        trials=trials,
    )
    return save_page(content, out or run.report)


def save_page(content: ReportContent, place: Path) -> Path:
    """Write a page, and say where.

    Args:
        content: All that it shows.
        place: The page, or a folder for it.

    Raises:
        WriteError: If it cannot be written.
    """
    page = place if place.suffix == ".html" else place / "report.html"
    with as_write_error(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
    write_report(page, content=content)
    return page


def describe_data(config: RunConfig, provenance: Mapping[str, Any], split: Split) -> dict[str, str]:
    """Give what was trained on what, by name, for people."""
    data = provenance["dataset"]
    counts = ", ".join(f"{len(split.ids(name))} {name}" for name in SPLIT_NAMES)
    return {
        "Data set": f"{data['title']} ({data['name']})",
        "Cases": counts,
        "Split": f"{split.origin}, sha256 {split.sha256[:16]}",
        "Source": data["source"],
        "License of the data": (data.get("license") or data["licence"]),
        "License of the model": _describe_license(config, (data.get("license") or data["licence"])),
        "Leak audit": _describe_leaks(data),
        "Network": config.model.architecture,
        "Training size": "{} x {} pixels".format(*config.train.image_size),
    }


def describe_timings(run: RunDir) -> dict[str, str]:
    """Give how long the training took, where the run says so."""
    if not run.timings.is_file():
        return {}
    content = json.loads(run.timings.read_text(encoding="utf-8"))
    seconds, steps = float(content["seconds"]), int(content["steps"])
    return {"Training": f"{steps} steps in {format_seconds(seconds)}"}


def describe_machine(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Give what made a run, by name, for people."""
    known = {key: provenance.get(key) for key in _MACHINE}
    facts = {key.replace("_", " "): str(value) for key, value in known.items() if value is not None}
    facts["command"] = " ".join(provenance.get("command", []))
    return {**facts, **provenance.get("versions", {})}


def list_issues(provenance: Mapping[str, Any], scored: SummaryFile | None) -> list[str]:
    """Give what was left out of training and scoring, one line each."""
    left_out = [issue["message"] for issue in provenance["dataset"]["left_out"]]
    return left_out + ([] if scored is None else [case.reason for case in scored.unscored])


def list_notes(provenance: Mapping[str, Any], scored: SummaryFile | None) -> list[str]:
    """Give what the reader should know before all else."""
    notes = []
    if scored is None:
        notes.append("Nothing was scored: every case was trained on.")
    leaks = provenance["dataset"].get("leaks")
    if leaks:
        notes.append(
            f"{len(leaks)} pairs of alike images lie in two parts of the split, so that scores "
            f"promise too much: {leaks[0]}"
        )
    if provenance["dataset"]["left_out"]:
        count = len(provenance["dataset"]["left_out"])
        notes.append(f"{count} issues: these cases were left out of the training.")
    return notes


def _describe_license(config: RunConfig, data_license: str) -> str:
    """Say what binds whoever passes the weights on: the code's license, and what they came from."""
    parts = ["code Apache-2.0", f"weights made from data under: {data_license}"]
    encoder = getattr(config.model, "encoder", "segnetr")
    if config.train.encoder_weights is not None and encoder in list_models():
        encoder_license = get_spec(encoder).weights_license
        parts.append(
            f"encoder started from {config.train.encoder_weights.name} (official weights of "
            f"{encoder}: {encoder_license})"
        )
    if config.train.weights is not None:
        parts.append(f"training started from {config.train.weights.name}, whose license adds to it")
    return "; ".join(parts)


def _note_reuse(run: RunDir, trials: Sequence[PostprocessingTrial]) -> list[str]:
    """Warn where repairs were chosen on the very cases that are scored."""
    if any(trial.taken for trial in trials) and choose_part(run) != "test":
        return [
            "The repairs were chosen on the validation cases, and there is no test part: the "
            "scores, which are of the same cases, promise too much."
        ]
    return []


def _describe_leaks(dataset: Mapping[str, Any]) -> str:
    leaks = dataset.get("leaks")
    if leaks is None:
        return "not made before the training (segnetr data check)"
    return f"{len(leaks)} pairs of alike images in two parts of the split"
