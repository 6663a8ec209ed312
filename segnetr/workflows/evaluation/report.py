"""`segnetr report`: write the HTML report of a run from the files in its folder."""

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
from segnetr.metrics import Unscored
from segnetr.outputs.models.model_file import read_card
from segnetr.outputs.reports.case_section import read_case_section
from segnetr.outputs.reports.figures import read_figures
from segnetr.outputs.reports.run_report import RunReport, write_run_report
from segnetr.outputs.tables.classification import UnscoredCase
from segnetr.outputs.tables.scores import read_summary_json
from segnetr.progress import format_seconds
from segnetr.storage.disk_errors import as_write_error
from segnetr.workflows.evaluation.case_figures import FOLDER
from segnetr.workflows.evaluation.evaluate import find_scored_split

_MACHINE = ("started", "platform", "processor", "cores", "threads", "device", "git_commit")


def report(run_folder: Path, *, out: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        run_folder: The run.
        out: Path of the page, or a folder for it; None: `report.html` in the run.

    Returns:
        Path of the page.

    Raises:
        UsageError: If the folder is not a run.
        WriteError: If the page cannot be written.
    """
    run = RunDir(run_folder)
    if not run.config.is_file():
        raise UsageError(f"{run_folder}: not a run (config.yaml is missing)")
    config = load_config([run.config])
    provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    summary = run.evaluation / "summary.json"
    scored = read_summary_json(summary) if summary.is_file() else None
    trials = read_card(run.path).postprocessing_trials if run.model.is_dir() else ()
    content = RunReport(
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
        issues=list_issues(provenance, () if scored is None else scored.unscored),
        notes=[
            *list_notes(provenance, is_scored=scored is not None),
            *note_seen_cases(run),
            *_note_reuse(run, trials),
        ],
        cases=read_case_section(run.evaluation),
        trials=trials,
    )
    page = prepare_page(out or run.report)
    write_run_report(page, content)
    return page


def prepare_page(path: Path) -> Path:
    """Return the path of a page, and create its folder.

    Args:
        path: The page, or a folder for `report.html`.

    Raises:
        WriteError: If the folder cannot be created.
    """
    page = path if path.suffix == ".html" else path / "report.html"
    with as_write_error(page.parent):
        page.parent.mkdir(parents=True, exist_ok=True)
    return page


def describe_data(config: RunConfig, provenance: Mapping[str, Any], split: Split) -> dict[str, str]:
    """Return the dataset, the split and the model in words, by name."""
    data = provenance["dataset"]
    return {
        "Dataset": f"{data['title']} ({data['name']})",
        "Cases": count_cases(split),
        "Split": describe_split(split),
        "Source": data["source"],
        "License of the data": data_license(data),
        "License of the model": _describe_license(config, data_license(data)),
        "Duplicate audit": _describe_duplicates(data),
        "Network": config.model.architecture,
        "Training size": "{} x {} pixels".format(*config.train.image_size),
    }


def count_cases(split: Split) -> str:
    """Return the number of cases of each split in words."""
    return ", ".join(f"{len(split.ids(name))} {name}" for name in SPLIT_NAMES)


def describe_split(split: Split) -> str:
    """Return the origin and the hash of a split in words."""
    return f"{split.origin}, sha256 {split.sha256[:16]}"


def describe_timings(run: RunDir) -> dict[str, str]:
    """Return the duration of the training if the run recorded it."""
    if not run.timings.is_file():
        return {}
    content = json.loads(run.timings.read_text(encoding="utf-8"))
    seconds, steps = float(content["seconds"]), int(content["steps"])
    return {"Training": f"{steps} steps in {format_seconds(seconds)}"}


def describe_machine(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine, the command and the versions of a run, by name."""
    known = {key: provenance.get(key) for key in _MACHINE}
    facts = {key.replace("_", " "): str(value) for key, value in known.items() if value is not None}
    facts["command"] = " ".join(provenance.get("command", []))
    return {**facts, **provenance.get("versions", {})}


def list_issues(
    provenance: Mapping[str, Any], unscored: Sequence[Unscored | UnscoredCase]
) -> list[str]:
    """Return the cases that were excluded from training or scoring, one line each."""
    left_out = [issue["message"] for issue in provenance["dataset"]["left_out"]]
    return left_out + [case.reason for case in unscored]


def list_notes(provenance: Mapping[str, Any], *, is_scored: bool) -> list[str]:
    """Return the warnings at the top of the report."""
    notes = []
    if not is_scored:
        notes.append("Nothing was scored: every case was trained on.")
    leaks = provenance["dataset"].get("leaks")
    if leaks:
        notes.append(
            f"{len(leaks)} pairs of duplicate images are in two splits, so the scores are too "
            f"optimistic: {leaks[0]}"
        )
    if provenance["dataset"]["left_out"]:
        count = len(provenance["dataset"]["left_out"])
        notes.append(f"{count} issues: these cases were excluded from the training.")
    notes += [
        f"{len(change['cases'])} cases were changed before step {change['step'] + 1}, which the "
        "user allowed (provenance.json)."
        for change in provenance.get("data_changes", ())
    ]
    return notes


def note_seen_cases(run: RunDir) -> list[str]:
    """Return a warning for each evaluation on another dataset with cases that the run has seen."""
    notes = []
    for path in sorted(run.path.glob("evaluation-*/summary.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            title, seen = content["title"], content.get("seen_cases", 0)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        if seen:
            notes.append(f"{path.parent.name}: {title}")
    return notes


def _describe_license(config: RunConfig, data_license: str) -> str:
    """Return the licenses that apply to the weights: of the code, the data and earlier weights."""
    parts = ["code Apache-2.0", f"weights trained on data under: {data_license}"]
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
    """Return a warning if postprocessing was selected on the cases that are scored."""
    if any(trial.taken for trial in trials) and find_scored_split(run) != "test":
        return [
            "The postprocessing was selected on the validation cases, and there is no test split: "
            "the scores are on the same cases and too optimistic."
        ]
    return []


def _describe_duplicates(dataset: Mapping[str, Any]) -> str:
    leaks = dataset.get("leaks")
    if leaks is None:
        return "not run before the training (segnetr data check)"
    return f"{len(leaks)} pairs of duplicate images in two splits"


def data_license(data: Mapping[str, Any]) -> str:
    """Return the license of the data; version 0.1 spelled the key "licence"."""
    return str(data.get("license") or data["licence"])
