"""Read runs for a comparison, and reject runs that cannot be compared."""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config, to_plain
from segnetr.config.schema.classification import is_classifier_run
from segnetr.config.schema.segmentation import RunConfig
from segnetr.data.splits.split import read_split
from segnetr.engine.training.fold_dir import FoldDir, is_cross_validation
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import ReadError, UsageError
from segnetr.metrics import PIXEL_COUNTS
from segnetr.metrics.case_values import CaseTable, tabulate_cases
from segnetr.metrics.score import GROUND_TRUTH_PIXELS
from segnetr.outputs.tables.case_records import CASES_NAME, map_patients, read_case_records
from segnetr.outputs.tables.scores import read_per_case_csv, read_summary_json

_SCORING = ("nsd_tolerance", "isic_threshold")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One run with its scores.

    Attributes:
        name: Short and unique among those compared.
        path: Its folder.
        config: Its settings.
        split: Hash of the split; for a cross-validation, of the splits of all folds.
        title: The scored cases in words.
        scoring: Settings of the scoring.
        table: Values by metric, class and case.
        patients: Patient by case id; None: scored by a version that did not record patients.
        tta: Test-time augmentation of the scored masks; empty: not known.
        notes: Warnings about its scores.
    """

    name: str
    path: Path
    config: RunConfig
    split: str
    title: str
    scoring: Mapping[str, Any]
    table: CaseTable
    patients: Mapping[str, str] | None
    tta: str = ""
    notes: tuple[str, ...] = ()

    @property
    def cases(self) -> frozenset[str]:
        """The cases that were scored."""
        return frozenset(case for cases in self.table["dice"].values() for case in cases)

    @property
    def metrics(self) -> list[str]:
        """The metrics, in the order in which they were scored."""
        return [metric for metric in self.table if metric not in PIXEL_COUNTS]


def read_runs(
    paths: Sequence[Path], *, dataset: str | None, split_name: str | None
) -> list[ComparedRun]:
    """Read the scores of runs, and check that they can be compared.

    Args:
        paths: Folders of at least two runs or cross-validations. For a cross-validation, the
            out-of-fold scores are read.
        dataset: Read the scores on this other dataset, from `segnetr evaluate RUN --dataset`.
        split_name: Read the scores on this split, from `segnetr evaluate RUN --split`.

    Raises:
        UsageError: If there are fewer than two, one has no scores, or they differ in their split,
            their cases, their classes, their ground truth or the settings of the scoring.
    """
    if len(paths) < 2:
        raise UsageError("compare needs two runs at least: segnetr compare RUN RUN")
    if dataset is not None and split_name is not None:
        raise UsageError(
            "--split with --dataset: only the last scores on another dataset are stored; run "
            f"segnetr evaluate --dataset {dataset} --split {split_name} and compare without --split"
        )
    names = name_runs(paths)
    runs = [
        _read_run(path, name, dataset=dataset, split_name=split_name)
        for path, name in zip(paths, names, strict=True)
    ]
    for run in runs[1:]:
        _check_pair(runs[0], run, same_split=dataset is None)
    return runs


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the shortest unique end of each path. Repeated paths get a number."""
    whole = [path.absolute().parts for path in paths]
    names: list[str] = []
    for index, parts in enumerate(whole):
        others = [other for other in whole if other != parts]
        count = next(
            n
            for n in range(1, len(parts) + 1)
            if n == len(parts) or all(other[-n:] != parts[-n:] for other in others)
        )
        repeat = whole[:index].count(parts)
        names.append("/".join(parts[-count:]) + (f" ({repeat + 1})" if repeat else ""))
    return names


def _read_run(path: Path, name: str, *, dataset: str | None, split_name: str | None) -> ComparedRun:
    run = RunDir(path)
    if not run.config.is_file():
        raise UsageError(f"{path}: not a run (config.yaml is missing)")
    if is_classifier_run(path):
        raise UsageError(f"{path}: a classifier's run; compare is for segmentation runs")
    folder, split = _find_scores(run, dataset or split_name)
    try:
        summary = read_summary_json(folder / "summary.json")
        table = tabulate_cases(read_per_case_csv(folder / "per_case.csv"))
        records = read_case_records(folder / CASES_NAME)
    except ReadError as error:
        raise UsageError(f"{path}: its scores cannot be read: {error}") from error
    if not table.get("dice"):
        raise UsageError(f"{folder}: no case was scored; run segnetr evaluate {path}")
    read = ComparedRun(
        name=name,
        path=path,
        config=load_config([run.config]),
        split=split,
        title=summary.title,
        scoring={key: summary.settings.get(key) for key in _SCORING},
        table=table,
        patients=map_patients(records) if records else None,
        tta=summary.tta,
    )
    return read if dataset is None else replace(read, notes=_list_known(read, dataset))


def _find_scores(run: RunDir, kind: str | None) -> tuple[Path, str]:
    """Return the folder of the scores, and the hash of the split of the run."""
    if kind is not None or not is_cross_validation(run.path):
        folder = run.evaluation if kind is None else _find_other_scores(run, kind)
        return folder, read_split(run.splits).sha256
    home = FoldDir(run.path)
    hashes = [read_split(home.fold(number).splits).sha256 for number in range(1, home.count() + 1)]
    return home.out_of_fold, hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _find_other_scores(run: RunDir, kind: str) -> Path:
    """Return the folder of the scores on another dataset; earlier versions named it only by this.

    Raises:
        UsageError: If the run was evaluated on several versions of the dataset.
    """
    plain = run.path / f"evaluation-{kind}"
    found = sorted(run.path.glob(f"evaluation-{glob.escape(kind)}-*"))
    if plain.is_dir() or not found:
        return plain
    if len(found) > 1:
        names = ", ".join(folder.name.removeprefix("evaluation-") for folder in found)
        raise UsageError(
            f"{run.path}: {len(found)} evaluations on {kind}; choose one with --dataset: {names}"
        )
    return found[0]


def _list_known(run: ComparedRun, dataset: str) -> tuple[str, ...]:
    """Return a note if cases of another dataset have names of cases that the run was trained on.

    Raises:
        UsageError: If it is the dataset that the run was trained on: same name, same cases.
    """
    split = read_split(RunDir(run.path).splits)
    seen = {*split.train, *split.validation}
    known = run.cases & seen
    if not known:
        return ()
    # Another folder of the same dataset may contain a case of the same name by chance.
    if dataset == run.config.data.dataset and known == seen:
        raise UsageError(
            f"--dataset {dataset}: {run.path} was trained on {len(known)} of these cases, for "
            f"example {min(known)}; name a dataset that no run has seen, or omit --dataset"
        )
    return (
        f"{len(known)} cases of {dataset} have names of cases that {run.path} was trained on, for "
        f"example {min(known)}: if they are the same images, its scores are too optimistic "
        "(segnetr data audit)",
    )


def _check_scoring(first: ComparedRun, other: ComparedRun) -> None:
    """Raise UsageError if two runs were scored with different settings."""
    if first.scoring != other.scoring:
        changed = [key for key in _SCORING if first.scoring[key] != other.scoring[key]]
        raise UsageError(
            f"{first.path} and {other.path} were scored with different evaluate."
            f"{changed[0]} ({first.scoring[changed[0]]} and {other.scoring[changed[0]]}); run "
            "segnetr evaluate on both with the same setting"
        )


def _check_pair(first: ComparedRun, other: ComparedRun, *, same_split: bool) -> None:
    if same_split and first.split != other.split:
        raise UsageError(
            f"{first.path} and {other.path} were trained on different splits (sha256 "
            f"{first.split[:16]} and {other.split[:16]}); train both with one data.split_seed, or "
            "score both on another dataset and compare with --dataset NAME"
        )
    missing = first.cases ^ other.cases
    if missing:
        raise UsageError(
            f"{first.path} and {other.path} were scored on different cases: {len(missing)} are in "
            f"only one of them, for example {min(missing)}; run segnetr evaluate on both with the "
            "same data"
        )
    if set(first.table["dice"]) != set(other.table["dice"]):
        classes = (", ".join(run.table["dice"]) for run in (first, other))
        raise UsageError(
            f"{first.path} and {other.path} have different classes: {'; '.join(classes)}"
        )
    _check_scoring(first, other)
    if set(first.metrics) != set(other.metrics):
        only = min(set(first.metrics) ^ set(other.metrics))
        raise UsageError(
            f"{first.path} and {other.path} were scored in different units: {only} is in only one "
            "of them; run segnetr evaluate on both with the same data"
        )
    if first.table[GROUND_TRUTH_PIXELS] != other.table[GROUND_TRUTH_PIXELS]:
        raise UsageError(
            f"{first.path} and {other.path} were scored against different masks: the ground-truth "
            "pixels of a case differ; run segnetr evaluate on both with the same data"
        )


def differing_settings(runs: Sequence[ComparedRun]) -> list[dict[str, str]]:
    """Return the settings in which runs differ, one row each, with the value in each run."""
    flat = [{**_flatten(to_plain(run.config)), "evaluate --tta": run.tta or "-"} for run in runs]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    rows = []
    for key in keys:
        values = [settings.get(key, "-") for settings in flat]
        if len(set(values)) > 1:
            rows.append(
                {"setting": key, **dict(zip([run.name for run in runs], values, strict=True))}
            )
    return rows


def _flatten(data: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(data, dict):
        return {prefix: str(data)}
    flat: dict[str, str] = {}
    for key, value in data.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
