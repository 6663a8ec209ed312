"""Published checkpoints are read without running code, loaded strictly, and refused in one line."""

import argparse
import logging
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hybrid_backbones import create_model, load_published, read_checkpoint
from hybrid_backbones.weights import CheckpointError, unwrap_state_dict


class Hostile:
    """An object that creates a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


class Settings(dict):
    """A stand-in for the settings objects (yacs) in some published files."""


def small(**fields):
    return create_model("mobile_former_26m", num_classes=7, **fields)


def one_line(caught) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_file_is_refused_and_never_run(tmp_path, zipped):
    trace = tmp_path / "it-ran"
    content = {"model": small().state_dict(), "config": Hostile(trace)}
    file = tmp_path / "hostile.pth"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match="not opened") as caught:
        read_checkpoint(file)
    assert str(file) in one_line(caught)
    assert not trace.exists()


def test_bare_hostile_pickle_is_refused_and_never_run(tmp_path):
    trace = tmp_path / "it-ran"
    (tmp_path / "hostile.bin").write_bytes(pickle.dumps(Hostile(trace), protocol=2))
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "hostile.bin")
    one_line(caught)
    assert not trace.exists()


def test_error_for_python_objects_explains_the_conversion(tmp_path):
    torch.save({"model": small().state_dict(), "config": Settings(a=1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"torch\.save\(torch\.load") as caught:
        read_checkpoint(tmp_path / "a.pth")
    one_line(caught)


def test_command_line_stored_with_the_weights_is_accepted(tmp_path):
    state = small().state_dict()
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=1)}, tmp_path / "a.pth.tar")
    assert set(read_checkpoint(tmp_path / "a.pth.tar")) == set(state)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file_is_refused(tmp_path, suffix, share):
    file = tmp_path / f"weights{suffix}"
    state = small().state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint") as caught:
        read_checkpoint(file)
    assert str(file) in one_line(caught)


def test_missing_file_and_other_bytes_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="no such checkpoint file"):
        read_checkpoint(tmp_path)
    (tmp_path / "page.pth").write_text("<html>quota exceeded</html>")
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(tmp_path / "page.pth")
    one_line(caught)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read_checkpoint(tmp_path / "list.pth")


def test_unpacked_download_is_read_like_the_file(tmp_path):
    state = small().state_dict()
    torch.save(state, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        archive.extractall(tmp_path / "unpacked")
    folder = next((tmp_path / "unpacked").iterdir())
    read = read_checkpoint(folder)
    assert set(read) == set(state)
    assert all(torch.equal(read[key], value) for key, value in state.items())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "state_dict_ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_are_opened(tmp_path, wrapper, prefix):
    state = {"a": torch.ones(2), "b.c": torch.zeros(3)}
    content = {wrapper: {prefix + key: value for key, value in state.items()}, "epoch": 3}
    torch.save(content, tmp_path / "a.pth")
    read = read_checkpoint(tmp_path / "a.pth")
    assert {key: value.tolist() for key, value in read.items()} == {"a": [1, 1], "b.c": [0, 0, 0]}


def test_moving_average_comes_before_the_last_weights():
    content = {"state_dict": {"a": torch.zeros(1)}, "state_dict_ema": {"a": torch.ones(1)}}
    assert unwrap_state_dict(content)["a"].item() == 1


@pytest.mark.parametrize(
    ("own", "theirs"),
    [("mobile_former_26m", "mobilevit_xxs"), ("cmt_ti", "mobile_former_52m")],
)
def test_checkpoint_of_another_network_is_recognized(own, theirs):
    state = create_model(theirs).state_dict()
    if theirs == "mobile_former_52m":
        state = {key: value for key, value in state.items() if key != "tokens.weight"}
    with pytest.raises(CheckpointError, match=rf"missing.*those of {theirs}") as caught:
        load_published(create_model(own), state)
    one_line(caught)


def test_checkpoint_of_another_variant_is_recognized():
    state = create_model("mobilevit_xs").state_dict()
    with pytest.raises(CheckpointError, match=r"has shape .* those of mobilevit_xs"):
        load_published(create_model("mobilevit_xxs"), state)


def test_checkpoint_of_an_unknown_network_is_reported_as_unknown():
    state = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).state_dict()
    with pytest.raises(CheckpointError, match="of no network known here"):
        load_published(small(), state)


def test_missing_and_additional_entries_are_named():
    state = small().state_dict()
    with pytest.raises(CheckpointError, match=r"1 unknown \(as extra\.weight\)"):
        load_published(small(), {**state, "extra.weight": torch.ones(1)})
    del state["stem.conv.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(as stem\.conv\.weight\)"):
        load_published(small(), state)


def test_other_channels_and_classes_are_adapted_and_reported(caplog):
    source = small()
    model = create_model("mobile_former_26m", num_classes=3, in_channels=5)
    head = model.classifier.fc2.weight.clone()
    with caplog.at_level(logging.WARNING, logger="hybrid_backbones"):
        report = load_published(model, source.state_dict())
    assert report.notes == tuple(record.getMessage() for record in caplog.records)
    assert len(report.notes) == 2
    assert "7 classes in the file, 3 here" in report.notes[0]
    assert "3 channels in the file adapted to 5" in report.notes[1]
    assert torch.equal(model.classifier.fc2.weight, head)
    # A gray image gives the same response as before.
    gray = torch.randn(1, 1, 32, 32)
    given = model.stem.conv(gray.expand(-1, 5, -1, -1))
    torch.testing.assert_close(given, source.stem.conv(gray.expand(-1, 3, -1, -1)))


@pytest.mark.slow
def test_file_is_loaded_by_name(tmp_path):
    source = small()
    torch.save({"model": source.state_dict()}, tmp_path / "a.pth")
    model = small(pretrained=tmp_path / "a.pth")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in model.state_dict().items())


def test_meta_network_uses_the_tensors_of_the_checkpoint():
    state = {key: value.double() for key, value in small().state_dict().items()}
    with torch.device("meta"):
        model = small()
    load_published(model, state)
    own = dict(model.named_parameters())
    assert {key: value.data_ptr() for key, value in own.items()} == {
        key: state[key].data_ptr() for key in own
    }
    assert {value.dtype for value in own.values()} == {torch.float64}
    with torch.inference_mode():
        assert model.eval()(torch.rand(1, 3, 64, 64, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "fields", "missing"),
    [("swin_tiny", {}, "position_index"), ("cvt_13", {"num_classes": 3}, "head.weight")],
)
def test_meta_network_with_missing_values_is_refused(name, fields, missing):
    state = create_model(name).state_dict()
    with torch.device("meta"):
        model = create_model(name, **fields)
    with pytest.raises(CheckpointError, match=missing):
        load_published(model, state)


@pytest.mark.parametrize(
    "damage", [IndexError, AssertionError, TypeError, AttributeError, KeyError]
)
def test_every_error_of_a_damaged_archive_is_reported_as_damage(tmp_path, monkeypatch, damage):
    file = tmp_path / "weights.pth"
    torch.save({"weight": torch.zeros(1)}, file)

    def fail(*args, **kwargs):
        raise damage("storage key not found")

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(CheckpointError, match="damaged or not a checkpoint"):
        read_checkpoint(file)
