"""The file of the backbones' benchmark: measured in pieces, without a machine's folders."""

import importlib
import json
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def results(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("backbone_results")


@pytest.fixture
def originals(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("backbone_originals")


def row(by, **figures):
    same = {"network": "cvt_13", "mode": "eval", "batch": 8, "threads": 1, "device": "cpu"}
    return {**same, "by": by, **figures}


def test_a_later_piece_replaces_its_like_and_leaves_the_rest(results):
    known = [row("ours", seconds=2.0, peak_mib=7), row("timm", seconds=3.0)]
    merged = results.merge_rows(known, [row("ours", seconds=1.0), row("ours", batch=4)])
    found = {(one["by"], one["batch"]): one for one in merged}
    assert len(merged) == 3
    assert found["ours", 8]["seconds"] == 1.0
    assert found["ours", 8]["peak_mib"] == 7
    assert found["timm", 8]["seconds"] == 3.0


def test_written_file_names_no_folder_and_is_read_again(results, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["backbones.py", "--timm", str(tmp_path), "--modes", "eval"])
    path = tmp_path / "results" / "backbones.json"
    results.write_rows(path, [row("ours", seconds=1.0)], device="cpu")
    assert results.read_rows(path) == [row("ours", seconds=1.0)]
    assert str(tmp_path) not in path.read_text()
    assert json.loads(path.read_text())["made_by"]["command"][-1] == "eval"


def test_an_original_is_compared_through_its_yardstick(originals):
    # A machine half as fast as that of the record, on which ours takes a third of the original.
    there = originals.ORIGINALS["moa_tiny"]
    ours, yardstick = 2 * there.seconds / 3, 2 * there.yardstick_seconds
    compared = originals.compare_with_original("moa_tiny", ours=ours, yardstick=yardstick)
    assert compared["ours_faster"] == pytest.approx(3)
    assert compared["is_same_code"]


def test_table_shows_what_was_measured_and_what_was_not(results, originals):
    original = originals.compare_with_original("cmt_ti", ours=0.1, yardstick=0.9)
    ours, timm = row("ours", seconds=1.0), row("timm", seconds=2.0, ours_faster=2.0, peak_mib=9)
    table = results.render_table([ours, timm, original])
    assert "| cvt_13 | eval | timm | 2.000 | 2.00x | 9 |" in table
    assert "| cvt_13 | eval | ours | 1.000 |  | not measured |" in table
    assert "rough |" in table


def test_committed_results_meet_the_goal(results):
    rows = results.read_rows(BENCHMARKS / "results" / "backbones.json")
    goals = {"eval": 1.3, "train": 1.0, "original": 1.3}
    found = [one for one in rows if one["mode"] in goals and not one["by"].startswith("ours")]
    assert found
    for one in found:
        assert one["ours_faster"] >= goals[one["mode"]], one
