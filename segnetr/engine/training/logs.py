"""Metric logs of a run: metrics.jsonl, metrics.csv and TensorBoard.

Lines contain no times, so that a resumed run writes the same lines as an uninterrupted one.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from torch.utils.tensorboard import SummaryWriter

from segnetr.engine.training.run_dir import RunDir
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import write_text_atomic

Phase = Literal["train", "validation"]
_HEADER = "step,phase,name,value\n"


class MetricLog:
    """Context manager that writes the values of steps and validations.

    A line of `metrics.jsonl` is `{"step": 12, "phase": "train", "total": 0.7, ...}`; the table
    `metrics.csv` has one row for each value: step, phase, name, value.

    Args:
        run: Where to write.
        start_step: Lines of later steps, written after the checkpoint of a killed run, are
            removed; 0 removes all lines.

    Raises:
        WriteError: If the files cannot be written.
    """

    def __init__(self, run: RunDir, *, start_step: int) -> None:
        self._run = run
        records = _read_records(run.metrics_jsonl, last_step=start_step)
        write_text_atomic(run.metrics_jsonl, "".join(map(_format_json, records)))
        write_text_atomic(run.metrics_csv, _HEADER + "".join(map(_format_rows, records)))
        with as_write_error(run.path):
            self._lines: TextIO = run.metrics_jsonl.open("a", encoding="utf-8")
            self._table: TextIO = run.metrics_csv.open("a", encoding="utf-8")
            purge = start_step + 1 if start_step else None
            self._board = SummaryWriter(str(run.tensorboard), purge_step=purge)

    def __enter__(self) -> "MetricLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with as_write_error(self._run.path):
            self._lines.close()
            self._table.close()
            self._board.close()

    def write(self, step: int, phase: Phase, values: Mapping[str, float]) -> None:
        """Write the values of a step.

        Raises:
            WriteError: If the disk is full.
        """
        record = {"step": step, "phase": phase, **values}
        with as_write_error(self._run.metrics_jsonl):
            self._lines.write(_format_json(record))
            self._table.write(_format_rows(record))
            self._lines.flush()
            self._table.flush()
            for name, value in values.items():
                self._board.add_scalar(f"{phase}/{name}", value, step)

    def sync(self) -> None:
        """Flush all lines to the disk; called before a checkpoint, which requires them.

        Raises:
            WriteError: If the disk is full.
        """
        with as_write_error(self._run.metrics_jsonl):
            for file in (self._lines, self._table):
                os.fsync(file.fileno())


def read_metrics(run: RunDir) -> list[dict[str, Any]]:
    """Read all lines of the `metrics.jsonl` of a run; empty if there is no such file."""
    return _read_records(run.metrics_jsonl, last_step=sys.maxsize)


def _read_records(path: Path, *, last_step: int) -> list[dict[str, Any]]:
    if last_step == 0 or not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            # An incomplete line of a run that was killed.
            break
        if record["step"] <= last_step:
            records.append(record)
    return records


def _format_json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"


def _format_rows(record: Mapping[str, Any]) -> str:
    prefix = f"{record['step']},{record['phase']}"
    values = {name: value for name, value in record.items() if name not in ("step", "phase")}
    return "".join(f"{prefix},{name},{value!r}\n" for name, value in values.items())
