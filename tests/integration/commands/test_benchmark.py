"""Test `segnetr benchmark` and the transfer of encoder weights on synthetic images."""

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow]


def test_benchmark_trains_each_encoder_once_and_saves_finished_rows(
    command, images: Path, tiny: list[str], tmp_path: Path
) -> None:
    arguments = ["benchmark", "--encoders", "segnetr,mobile_former_26m", "--dataset", "isic2018"]
    arguments += ["--data-dir", images, *tiny, "--steps", 2, "--out", tmp_path / "b", "--json"]
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)
    assert [row["network"] for row in first["rows"]] == ["segnetr", "mobile_former_26m"]
    assert all(0 <= row["dice"] <= 1 and row["speed"] > 0 for row in first["rows"])
    assert (tmp_path / "b" / "encoders.svg").is_file()
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "b" / "runs").rglob("model.*")}
    again = command(*arguments)
    assert json.loads(again.stdout)["rows"] == first["rows"]
    assert all(file.stat().st_mtime_ns == moment for file, moment in written.items())


def test_benchmark_prints_paired_differences_with_their_interval(
    command, images: Path, tiny: list[str], tmp_path: Path
) -> None:
    arguments = ["--dataset", "isic2018", "--data-dir", images, "--steps", 2]
    arguments += ["--set", "train.image_size=64", "--set", "train.warmup_steps=1"]
    arguments += ["--batch-size", 2, "--workers", 0, "--device", "cpu", "--json"]
    done = command(
        "benchmark", "--ablation", "irsc", "--pairs", "unext", *arguments, "--out", tmp_path / "b"
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["network"] == "unext"
    assert row["low"] <= row["difference"] <= row["high"]
    assert row["irsc_parameters"] < row["plain_parameters"]


def test_wrong_usage_gives_a_one_line_error(command, tmp_path: Path) -> None:
    for arguments in ([], ["--ablation", "windows"], ["--encoders", "all", "--pairs", "unet"]):
        done = command("benchmark", *arguments, "--out", tmp_path / "b")
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_encoder_weights_are_transferred_to_the_next_run_and_frozen(
    command, images: Path, tiny: list[str], tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    data = ["--dataset", "isic2018", "--data-dir", images, *tiny]
    data += ["--encoder", "mobile_former_26m", "--skip", "irsc"]
    first = command("train", *data, "--steps", 2, "--out", tmp_path / "first", "--quiet")
    assert first.returncode == 0, first.stderr
    second = command(
        *["train", *data, "--steps", 2, "--out", tmp_path / "second", "--seed", 4],
        *["--encoder-weights", tmp_path / "first", "--set", "train.freeze_encoder_epochs=1"],
        *["--set", "train.ema_decay=0"],
    )
    assert second.returncode == 0, second.stderr
    assert "tensors matched (100%)" in second.stderr
    assert "tensors matched (100%)" in (tmp_path / "second" / "log.txt").read_text()
    one, two = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "second")
    )
    backbone = [key for key in one if ".pyramid." in key and "num_batches" not in key]
    assert backbone
    assert all((one[key] == two[key]).all() for key in backbone)
    assert (one["network.head.weight"] != two["network.head.weight"]).any()
    refused = command(
        *["train", *data, "--steps", 1, "--out", tmp_path / "third", "--encoder", "cvt_13"],
        *["--encoder-weights", tmp_path / "first"],
    )
    assert refused.returncode == 2
    assert "--accept-partial" in refused.stderr
