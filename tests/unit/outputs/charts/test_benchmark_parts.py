"""Paired differences, scatter plots, tables and stored rows of benchmarks."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from segnetr.config.load import load_config, to_plain
from segnetr.config.schema.segmentation import RunConfig
from segnetr.errors import UsageError
from segnetr.metrics.paired import compare_paired
from segnetr.outputs.charts.dot_plot import Dot
from segnetr.outputs.charts.scatter import ScatterPanel, draw_scatter_file
from segnetr.outputs.tables.markdown import markdown_table
from segnetr.progress import Progress
from segnetr.storage.manifest import write_json
from segnetr.workflows.benchmarking import benchmark
from segnetr.workflows.benchmarking import row as benchmark_row
from segnetr.workflows.benchmarking.row import BenchmarkRow, measure_row, time_interleaved

QUIET = Progress(quiet=True)


def test_difference_is_second_minus_first_over_shared_cases() -> None:
    first = {"a": 0.5, "b": 0.7, "only_first": 0.0}
    second = {"a": 0.6, "b": 0.9, "only_second": 1.0}
    found = compare_paired(first, second)
    assert found.mean == pytest.approx(0.15)
    assert found.cases == 2
    assert found.low is not None
    assert found.high is not None
    assert 0.1 - 1e-9 <= found.low <= found.mean <= found.high <= 0.2 + 1e-9


def test_constant_gain_has_an_interval_of_width_zero() -> None:
    first = {str(i): i / 20 for i in range(15)}
    second = {case: value + 0.1 for case, value in first.items()}
    found = compare_paired(first, second)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_cases_of_one_patient_are_resampled_as_a_group() -> None:
    first = dict.fromkeys("abcd", 0.0)
    second = {"a": 0.0, "b": 0.0, "c": 1.0, "d": 1.0}
    alone = compare_paired(first, second)
    grouped = compare_paired(first, second, patients={"a": "p", "b": "p", "c": "q", "d": "q"})
    assert (grouped.low, grouped.high) == (0.0, 1.0)
    assert alone.mean == grouped.mean == 0.5
    assert compare_paired(first, second, patients=dict.fromkeys("abcd", "p")).low is None


def test_results_without_common_case_are_rejected() -> None:
    with pytest.raises(ValueError, match="no case"):
        compare_paired({"a": 1.0}, {"b": 1.0})


def test_scatter_plot_has_a_dot_and_a_name_for_each_and_no_external_address() -> None:
    names = ["segnetr", "a<b", "timm:resnet18"]
    dots = [Dot(name=name, x=10.0**i, y=0.5 + 0.1 * i) for i, name in enumerate(names)]
    panel = ScatterPanel(title="Dice", x_label="cost", y_label="quality", dots=dots)
    svg = draw_scatter_file([panel, panel])
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    circles = list(root.iter(f"{space}circle"))
    assert len(circles) == 6
    places = [(float(c.get("cx") or -1), float(c.get("cy") or -1)) for c in circles[:3]]
    assert all(0 < x < 720 and 0 < y < 540 for x, y in places)
    assert places[0][0] < places[1][0] < places[2][0]
    assert places[0][1] > places[1][1] > places[2][1]
    texts = [text.text for text in root.iter(f"{space}text")]
    assert all(texts.count(name) == 2 for name in names)
    assert "href" not in svg


def test_overlapping_names_are_shown_only_as_tooltips() -> None:
    dots = [Dot(name=f"network_{i}", x=1 + i / 1000, y=0.5, marked=i == 30) for i in range(40)]
    svg = draw_scatter_file([ScatterPanel(title="t", x_label="x", y_label="y", dots=dots)])
    space = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(svg)
    written = [t.text for t in root.iter(f"{space}text") if (t.text or "").startswith("network")]
    assert "network_30" in written
    assert 2 <= len(written) < 40
    hidden = [str(t.text) for t in root.iter(f"{space}title")]
    assert sum(text.startswith("network_") for text in hidden) == 40


def test_single_dot_is_drawn_and_a_cost_of_zero_is_rejected() -> None:
    panel = ScatterPanel(title="t", x_label="x", y_label="y", dots=[Dot(name="one", x=3.0, y=0.8)])
    ET.fromstring(draw_scatter_file([panel]))
    with pytest.raises(ValueError, match="above 0"):
        draw_scatter_file([replace(panel, dots=[Dot(name="one", x=0.0, y=0.8)])])


def test_markdown_has_a_line_for_each_row() -> None:
    table = markdown_table([{"a": 1.5, "b": None}, {"a": 2, "b": "x|y"}])
    assert table.splitlines() == ["| a | b |", "| --- | --- |", "| 1.5 |  |", "| 2 | x\\|y |"]
    assert markdown_table([]) == ""


def test_networks_are_timed_interleaved() -> None:
    import torch

    calls: list[str] = []

    class Named(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            calls.append(self.name)
            return image

    seconds = time_interleaved([Named("a"), Named("b")], torch.zeros(1))
    assert calls == ["a", "b"] * (len(calls) // 2)
    assert all(value > 0 for value in seconds)


def make_row(name: str, dice: float, config: RunConfig) -> BenchmarkRow:
    per_case = {str(i): dice + i / 100 for i in range(4)}
    return BenchmarkRow(
        name=name,
        parameters=10,
        gmac=1.0,
        milliseconds=2.0,
        speed=1.5,
        dice=dice,
        low=None,
        high=None,
        train_minutes=0.1,
        per_case=per_case,
        identity=benchmark_row.config_identity(config),
    )


def test_finished_row_is_read_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(benchmark_row, "train", refuse)
    config = load_config(["model/unext"])
    (tmp_path / "rows").mkdir()
    write_json(tmp_path / "rows" / "unext.json", to_plain(make_row("unext", 0.7, config)))
    row = measure_row("unext", config, out=tmp_path, progress=QUIET)
    assert row.dice == 0.7
    other = load_config(["model/unext"], flags={"train.steps": 3})
    with pytest.raises(UsageError, match=r"other settings \(train\)"):
        measure_row("unext", other, out=tmp_path, progress=QUIET)
    (tmp_path / "rows" / "unext.json").write_text("{", encoding="utf-8")
    with pytest.raises(UsageError, match="remove the file"):
        measure_row("unext", config, out=tmp_path, progress=QUIET)


def test_encoders_are_compared_one_by_one_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def measure(name: str, config: RunConfig, **_: object) -> BenchmarkRow:
        seen.append(config.model.encoder)  # type: ignore[union-attr]
        return make_row(name, 0.5 + len(seen) / 10, config)

    monkeypatch.setattr(benchmark, "measure_row", measure)
    config = load_config(["model/segnetr_any_s"])
    outcome = benchmark.benchmark_encoders(
        config, ["segnetr", "cvt_13", "segnetr"], out=tmp_path, progress=QUIET
    )
    assert seen == ["segnetr", "cvt_13"]
    assert [row["network"] for row in outcome.rows] == seen
    assert all(file.is_file() for file in outcome.files)
    assert "| cvt_13 |" in (tmp_path / "encoders.md").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match=r"did you mean 'cvt_13'"):
        benchmark.benchmark_encoders(config, ["cvt13"], out=tmp_path, progress=QUIET)
    with pytest.raises(UsageError, match="no encoder to replace"):
        benchmark.benchmark_encoders(
            load_config(["model/unet"]), ["cvt_13"], out=tmp_path, progress=QUIET
        )


def test_pairs_are_compared_case_by_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(name: str, config: RunConfig, **_: object) -> BenchmarkRow:
        return make_row(name, 0.6 if name.endswith("plain") else 0.65, config)

    monkeypatch.setattr(benchmark, "measure_row", measure)
    monkeypatch.setattr(benchmark, "open_dataset", lambda _: SimpleNamespace(cases=[]))
    config = load_config([])
    outcome = benchmark.benchmark_skips(config, ["unext"], out=tmp_path, progress=QUIET)
    row = outcome.rows[0]
    assert (row["difference"], row["low"], row["high"], row["cases"]) == (0.05, 0.05, 0.05, 4)
    with pytest.raises(UsageError, match=r"did you mean 'unext'"):
        benchmark.benchmark_skips(config, ["unxt"], out=tmp_path, progress=QUIET)
