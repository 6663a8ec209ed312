"""`segnetr benchmark`: train several networks on the same images and budget, and compare them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.config.load import load_config
from segnetr.config.schema.segmentation import RunConfig, SegNetrConfig
from segnetr.engine.training.runtime import choose_device
from segnetr.errors import UsageError, unknown_name
from segnetr.metrics.paired import compare_paired
from segnetr.models.segnetr.backbone_encoder import check_encoder, list_encoders
from segnetr.outputs.charts.dot_plot import Dot
from segnetr.outputs.charts.scatter import ScatterPanel, draw_scatter_file
from segnetr.outputs.models.provenance import collect_provenance
from segnetr.outputs.tables.markdown import markdown_table
from segnetr.outputs.tables.scores import text_table
from segnetr.progress import Progress
from segnetr.storage.manifest import write_json, write_text_atomic
from segnetr.workflows.benchmarking.row import BenchmarkRow, measure_row
from segnetr.workflows.datasets.loading import open_dataset

PAIRS: Mapping[str, tuple[str, str]] = {
    "unet": ("model/unet", "model/unet_irsc"),
    "unet_plus_plus": ("model/unet_plus_plus", "model/unet_plus_plus_irsc"),
    "segnet": ("model/segnet", "model/segnet_irsc"),
    "unext": ("model/unext", "model/unext_irsc"),
    "segnetr": ("ablation/skip_concat", "ablation/skip_irsc"),
}
"""Networks of the skip ablation in the paper: recipe with plain skips, recipe with IRSC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkOutcome:
    """A table and its files.

    Attributes:
        title: Title of the comparison.
        rows: A mapping for each row.
        files: The written files.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    files: Sequence[Path]

    def to_dict(self) -> Mapping[str, Any]:
        """Return the table as plain data."""
        return {
            "title": self.title,
            "rows": [dict(row) for row in self.rows],
            "files": [str(file) for file in self.files],
        }

    def __str__(self) -> str:
        """Return the table as lines of text."""
        lines = [self.title, text_table(self.rows)]
        return "\n".join([*lines, *(f"file: {file}" for file in self.files)])


def benchmark_encoders(
    config: RunConfig, encoders: Sequence[str], *, out: Path, progress: Progress
) -> BenchmarkOutcome:
    """Train SegNetr with each encoder on the same cases and budget, and plot Dice against cost.

    Finished rows are saved in `out`, so that an interrupted benchmark continues with the next one.

    Args:
        config: Common configuration; its model is a SegNetr, whose encoder is replaced.
        encoders: Names of encoders; "all": the native one and every backbone.
        out: Folder of `encoders.json`, `.md`, `.svg`, `rows/` and `runs/`.
        progress: Shows the progress.

    Raises:
        UsageError: If an encoder is unknown, the model is not a SegNetr, or `out` contains rows of
            other settings.
    """
    model = config.model
    if not isinstance(model, SegNetrConfig):
        raise UsageError(
            f"model {model.architecture!r} has no encoder to replace; use --model segnetr"
        )
    names = list_encoders() if list(encoders) == ["all"] else list(dict.fromkeys(encoders))
    for name in names:
        check_encoder(name, {})
    rows = []
    for name in names:
        replaced = replace(model, encoder=name, encoder_settings={})
        row = measure_row(name, replace(config, model=replaced), out=out, progress=progress)
        rows.append(row)
        _write(
            out / "encoders", "SegNetr with each encoder", [r.to_table_row() for r in rows], config
        )
    image = out / "encoders.svg"
    write_text_atomic(image, draw_scatter_file(_panels(rows)))
    return BenchmarkOutcome(
        title=f"SegNetr with each encoder: {_describe(config)}",
        rows=[row.to_table_row() for row in rows],
        files=[out / "encoders.json", out / "encoders.md", image],
    )


def benchmark_skips(
    config: RunConfig, pairs: Sequence[str], *, out: Path, progress: Progress
) -> BenchmarkOutcome:
    """Train networks with plain skips and with IRSC, and compare them case by case.

    Args:
        config: Common configuration; its model is not used.
        pairs: Names of `PAIRS`; empty: all.
        out: Folder of `irsc.json`, `.md`, `rows/` and `runs/`.
        progress: Shows the progress.

    Raises:
        UsageError: If a pair is unknown, or `out` contains rows of other settings.
    """
    for name in pairs:
        if name not in PAIRS:
            raise unknown_name("pair", name, PAIRS)
    cases = open_dataset(config.data).cases
    patients = {case.case_id: case.patient_id for case in cases if case.patient_id}
    shown = []
    for name in dict.fromkeys(pairs or PAIRS):
        plain_row, irsc_row = (
            measure_row(
                f"{name}-{kind}",
                replace(config, model=load_config([recipe]).model),
                out=out,
                progress=progress,
            )
            for kind, recipe in zip(("plain", "irsc"), PAIRS[name], strict=True)
        )
        shown.append(_compare(name, plain_row, irsc_row, patients=patients, config=config))
        _write(out / "irsc", "Plain skips against IRSC", shown, config)
    return BenchmarkOutcome(
        title=f"plain skips against IRSC, difference of Dice: {_describe(config)}",
        rows=shown,
        files=[out / "irsc.json", out / "irsc.md"],
    )


def _compare(
    name: str,
    plain: BenchmarkRow,
    irsc: BenchmarkRow,
    *,
    patients: Mapping[str, str],
    config: RunConfig,
) -> dict[str, Any]:
    difference = compare_paired(
        plain.per_case,
        irsc.per_case,
        patients=patients,
        bootstrap=config.evaluate.bootstrap,
        seed=config.evaluate.seed,
    )
    return {
        "network": name,
        "plain_dice": round(plain.dice, 4),
        "irsc_dice": round(irsc.dice, 4),
        "difference": round(difference.mean, 4),
        "low": None if difference.low is None else round(difference.low, 4),
        "high": None if difference.high is None else round(difference.high, 4),
        "cases": difference.cases,
        "plain_parameters": plain.parameters,
        "irsc_parameters": irsc.parameters,
        "plain_gmac": round(plain.gmac, 3),
        "irsc_gmac": round(irsc.gmac, 3),
        "irsc_speed": round(irsc.speed / plain.speed, 2),
    }


def _panels(rows: Sequence[BenchmarkRow]) -> list[ScatterPanel]:
    def dots(costs: Sequence[float]) -> list[Dot]:
        return [
            Dot(name=row.name, x=cost, y=row.dice, marked=row.name == "segnetr")
            for row, cost in zip(rows, costs, strict=True)
        ]

    by_cost = dots([row.gmac for row in rows])
    by_time = dots([row.milliseconds for row in rows])
    return [
        ScatterPanel(
            title="Dice against cost",
            x_label="GFLOPs (multiply-adds) of one image",
            y_label="mean Dice",
            dots=by_cost,
        ),
        ScatterPanel(
            title="Dice against time",
            x_label="milliseconds for one image on this machine",
            y_label="mean Dice",
            dots=by_time,
        ),
    ]


def _write(stem: Path, title: str, rows: Sequence[Mapping[str, Any]], config: RunConfig) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "title": title,
        "setting": _describe(config),
        "rows": [dict(row) for row in rows],
        "made_by": collect_provenance(device=choose_device(config.train.device)),
    }
    write_json(stem.with_suffix(".json"), content)
    write_text_atomic(
        stem.with_suffix(".md"), f"# {title}\n\n{_describe(config)}\n\n{markdown_table(rows)}"
    )


def _describe(config: RunConfig) -> str:
    size = config.train.image_size
    budget = (
        f"{config.train.steps} steps"
        if config.train.steps is not None
        else f"{config.train.epochs} epochs"
    )
    return (
        f"{config.data.dataset}, {size[0]}x{size[1]} pixels, {budget} of batch "
        f"{config.train.batch_size}, seed {config.train.seed}"
    )
