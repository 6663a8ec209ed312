"""The model folder: invalid content is rejected, nothing is executed, weights round-trip."""

import json
import pickle
import random
import struct
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from segnetr.config.schema.segmentation import (
    IntensityConfig,
    MonaiConfig,
    PredictConfig,
    SegNetrConfig,
    UNetConfig,
)
from segnetr.errors import ModelFileError, WriteError
from segnetr.models.build import build_model
from segnetr.outputs.models.model_file import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelCard,
    find_model_folder,
    load_model,
    read_model,
    write_model,
)
from segnetr.storage.manifest import MANIFEST_NAME, write_manifest

SIZE = (32, 32)
UNET = {"architecture": "unet", "width": 2}
# One of each family, cut down.
ENCODERS: dict[str, dict[str, Any]] = {
    "cmt_ti": {"depths": [1, 1, 1, 1]},
    "cvt_13": {"depths": [1, 1, 1]},
    "moa_tiny": {"depths": [1, 1, 1]},
    "mobile_former_26m": {},
    "mobilevit_xxs": {"depths": [1, 1, 1]},
    "swin_tiny_c24": {"depths": [1, 1, 1, 1], "embed_dim": 48},
    "vitae_base": {"embed_dim": 96, "depth": 2, "num_heads": 3},
    "vitae_tiny": {"depths": [0, 0, 1]},
    "vitaev2_s": {"depths": [1, 1, 1, 1]},
}


def make_card(**changes: Any) -> ModelCard:
    facts: dict[str, Any] = {
        "architecture": UNET,
        "classes": ("background", "lesion"),
        "in_channels": 3,
        "image_size": SIZE,
        "intensity": {},
        "predict": {"mode": "window", "overlap": 0.25},
        "dataset": "synthetic",
        "data_license": "Apache-2.0",
        "split_sha256": "0" * 64,
        "scores": {"dice": 0.875},
        "versions": {"torch": torch.__version__},
    }
    return ModelCard(**{**facts, **changes})


def make_network(card: ModelCard, *, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(
        card.architecture,
        in_channels=card.in_channels,
        num_classes=len(card.classes),
        image_size=card.image_size,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    card = make_card()
    write_model(tmp_path / "run" / "model", make_network(card).state_dict(), card=card)
    return tmp_path / "run" / "model"


def refused(path: Path) -> str:
    """Read, expect one line that names the folder's file, and give it."""
    with pytest.raises(ModelFileError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 800
    assert str(path) in message
    return message


def change_card(folder: Path, **changes: Any) -> None:
    """Change the card and seal the folder again, as somebody who means harm would."""
    card = json.loads((folder / CARD_NAME).read_text())
    card.update(changes)
    (folder / CARD_NAME).write_text(json.dumps(card))
    write_manifest(folder)


def change_weights(folder: Path, tensors: dict[str, Tensor]) -> None:
    (folder / WEIGHTS_NAME).write_bytes(safetensors.torch.save(tensors))
    write_manifest(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        {"architecture": "segnetr", "width": 4, "native_size": [64, 32]},
        {"architecture": "segnetr", "width": 8, "mixing": "position"},
        UNET,
        {"architecture": "basic_unet", "features": [4, 4, 4, 4, 4, 4]},
        {"architecture": "attention_unet", "features": [4, 8, 8]},
        {"architecture": "swin_unetr", "features": [12]},
        *(
            {
                "architecture": "segnetr",
                "width": 8,
                "mixing": "position",
                "encoder": encoder,
                "encoder_settings": settings,
            }
            for encoder, settings in ENCODERS.items()
        ),
    ],
    ids=lambda value: value.get("encoder", value["architecture"]),
)
def test_every_architecture_round_trips_with_its_weights(
    architecture: dict[str, Any], tmp_path: Path
) -> None:
    card = make_card(architecture=architecture)
    network = make_network(card).eval()
    write_model(tmp_path / "model", network.state_dict(), card=card)
    read_card, loaded = load_model(tmp_path / "model")
    assert read_card == card
    assert not loaded.training
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    image = torch.rand(1, 3, 40, 33)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(image), network(image), rtol=0, atol=0)


def test_card_parses_plain_data() -> None:
    card = make_card(architecture={"architecture": "segnetr", "width": 32})
    assert card.architecture == SegNetrConfig(width=32)
    assert card.intensity == IntensityConfig()
    assert card.predict == PredictConfig(mode="window", overlap=0.25)
    assert make_card(architecture=UNetConfig(width=2)) == make_card()
    monai = make_card(architecture={"architecture": "basic_unet"}).architecture
    assert monai == MonaiConfig(architecture="basic_unet")
    with pytest.raises(AttributeError):
        card.dataset = "other"  # type: ignore[misc]


def test_folder_contains_only_safe_formats(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {WEIGHTS_NAME, CARD_NAME, MANIFEST_NAME}
    card = json.loads((folder / CARD_NAME).read_text())
    assert card["format_version"] == 1
    assert card["created_by"].startswith("segnetr ")
    assert card["architecture"] == {**UNET, "block": "convolution", "skip": "plain"}
    assert card["image_size"] == [32, 32]


def test_run_model_folder_and_its_files_load_the_same_model(folder: Path) -> None:
    for path in (folder, folder.parent, folder / CARD_NAME, folder / WEIGHTS_NAME):
        assert find_model_folder(path) == folder
        assert read_model(path)[0] == make_card()


def test_existing_model_is_replaced_completely(folder: Path) -> None:
    card = make_card(scores={"dice": 0.9})
    write_model(folder, make_network(card, seed=1).state_dict(), card=card)
    assert read_model(folder)[0].scores == {"dice": 0.9}
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_tensors_of_any_layout_and_shared_memory_are_written(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(1, 2, 3, 4)
    tensors = {
        "last": base.to(memory_format=torch.channels_last),
        "part": base[:, :, ::2],
        "same": base,
        "again": base,
        "none": torch.zeros(0, 3),
        "number": torch.tensor(7),
        "trained": nn.Parameter(torch.ones(2)),
    }
    write_model(tmp_path / "m", tensors, card=make_card())
    _, read = read_model(tmp_path / "m")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(read[name], tensor.detach(), rtol=0, atol=0)


def test_loading_does_not_change_the_random_state(folder: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_model(folder)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_weights_do_not_change_when_the_file_does(folder: Path) -> None:
    _, weights = read_model(folder)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    with (folder / WEIGHTS_NAME).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(0)
        file.write(b"\xff" * size)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


# What is refused


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME, MANIFEST_NAME])
def test_error_for_missing_file_names_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in refused(folder)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME])
def test_error_for_one_flipped_byte_names_the_file(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert name in refused(folder)


@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME])
def test_file_missing_from_the_manifest_is_rejected(folder: Path, name: str) -> None:
    manifest = folder / MANIFEST_NAME
    lines = manifest.read_text().splitlines(keepends=True)
    manifest.write_text("".join(line for line in lines if name not in line))
    assert name in refused(folder)


def test_missing_file_listed_in_the_manifest_is_rejected(folder: Path) -> None:
    with (folder / MANIFEST_NAME).open("a") as manifest:
        manifest.write(f"{'0' * 64}  more.safetensors\n")
    assert "more.safetensors" in refused(folder)


def test_empty_manifest_is_rejected(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text("")
    assert MANIFEST_NAME in refused(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_damaged_weights_are_rejected_with_a_valid_manifest(folder: Path, share: float) -> None:
    content = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(content[: int(len(content) * share)])
    write_manifest(folder)
    assert WEIGHTS_NAME in refused(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"surprise": 1}, "surprise"),
        ({"architecture": {"architecture": "os.system", "width": 2}}, "os.system"),
        ({"architecture": {"_target_": "os.system"}}, "architecture"),
        ({"architecture": {**UNET, "wdith": 2}}, "wdith"),
        ({"architecture": {**UNET, "width": "2"}}, "width"),
        ({"architecture": {**UNET, "width": 2.5}}, "width"),
        ({"architecture": {**UNET, "width": 0}}, "width"),
        ({"architecture": "unet"}, "architecture"),
        ({"architecture": None}, "architecture"),
        ({"classes": ["background"]}, "classes"),
        ({"classes": ["background", "background"]}, "named twice"),
        ({"classes": ["background", "a\nb"]}, "classes"),
        ({"classes": ["background", 7]}, "classes"),
        ({"in_channels": 0}, "in_channels"),
        ({"in_channels": "3"}, "in_channels"),
        ({"in_channels": 5}, "intensity does not fit 5"),
        ({"image_size": [31, 32]}, "image_size"),
        ({"image_size": [32, 32, 32]}, "image_size"),
        ({"intensity": {"kind": "fixed", "std": [0.0]}}, "std"),
        ({"intensity": {"kind": "fixed", "std": [float("inf")]}}, "no JSON"),
        ({"intensity": {"kind": "zscore"}}, "kind"),
        ({"predict": {"overlap": 1.0}}, "overlap"),
        ({"predict": {"window_batch": True}}, "window_batch"),
        ({"scores": {"dice": float("nan")}}, "no JSON"),
        ({"scores": {"dice": "high"}}, "dice"),
        ({"split_sha256": "xyz"}, "split_sha256"),
        ({"format_version": 2}, "format version 2 is not known, 1 is"),
        ({"format_version": "1"}, "format version '1'"),
        ({"\x1b[31mred\nnew": 1}, "[31mred new"),
        ({"dataset": 5}, "dataset"),
    ],
)
def test_error_for_invalid_model_card_is_one_line(
    folder: Path, changes: dict[str, Any], words: str
) -> None:
    change_card(folder, **changes)
    message = refused(folder)
    assert CARD_NAME in message
    assert words in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b'{"classes": ' + b"[" * 100_000,
        b'{"architecture": ' + b'{"a":' * 300 + b"1" + b"}" * 301,
        b'{"in_channels": ' + b"9" * 5000 + b"}",
        b" " * 2_000_000,
        pickle.dumps({"a": 1}),
    ],
    ids=range(11),
)
def test_file_that_is_not_a_card_is_rejected(folder: Path, content: bytes) -> None:
    (folder / CARD_NAME).write_bytes(content)
    write_manifest(folder)
    assert CARD_NAME in refused(folder)


def test_card_error_lists_at_most_three_issues(folder: Path) -> None:
    change_card(folder, **{f"surprise_{number}": 1 for number in range(100)})
    message = refused(folder)
    assert "and 97 more" in message


def test_error_for_weights_of_another_network_names_a_tensor(folder: Path) -> None:
    weights = read_model(folder)[1]
    name = sorted(weights)[0]
    without = {key: tensor for key, tensor in weights.items() if key != name}
    padded = {**without, "filler": weights[name]}
    for tensors, words in (
        (without, f"1 tensors are missing, such as {name}"),
        ({name: weights[name]}, "fewer weights"),
        (padded, f"1 tensors are missing, such as {name}"),
        ({**weights, "extra.\x1b[2Jweight": torch.ones(1)}, "1 tensors are not of this"),
        ({**weights, name: weights[name][None]}, f"{name} is torch.float32 (1, "),
        ({**weights, name: weights[name].double()}, f"{name} is torch.float64"),
    ):
        change_weights(folder, tensors)
        message = refused(folder)
        assert WEIGHTS_NAME in message
        assert words in message


def test_weights_of_another_size_are_rejected(folder: Path) -> None:
    change_card(folder, architecture={**UNET, "width": 4})
    assert WEIGHTS_NAME in refused(folder)


@pytest.mark.parametrize(
    "architecture",
    [
        {**UNET, "width": 10**5},
        {**UNET, "width": 10**12},
        {**UNET, "width": 10**30},
        {"architecture": "segnetr", "width": 4 * 10**6},
        {"architecture": "basic_unet", "features": [10**5] * 6},
        {"architecture": "basic_unet", "features": [4]},
        {"architecture": "attention_unet", "features": [4] * 3000},
        {"architecture": "swin_unetr", "features": [12 * 10**4]},
        {"architecture": "swin_unetr", "features": [13]},
    ],
    ids=str,
)
def test_oversized_card_is_rejected_before_memory_is_allocated(
    folder: Path, architecture: dict[str, Any]
) -> None:
    import resource

    change_card(folder, architecture=architecture)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes


def test_error_for_path_without_model_is_one_line_with_advice(tmp_path: Path) -> None:
    assert "no such run" in refused(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "finished run" in refused(tmp_path / "empty")
    (tmp_path / "weights.pth").write_bytes(pickle.dumps({"a": 1}))
    assert "finished run" in refused(tmp_path / "weights.pth")


def test_error_for_unwritable_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    card = make_card()
    for target in (tmp_path / "file" / "model", tmp_path / "file" / "a" / "model"):
        with pytest.raises(WriteError) as caught:
            write_model(target, {"a": torch.ones(1)}, card=card)
        assert "\n" not in str(caught.value)


# Nothing in a folder is run

_DANGEROUS = ("exec", "compile", "import", "pickle.find_class", "os.system", "subprocess.Popen",
              "socket.connect", "ctypes.dlopen", "marshal.loads")  # fmt: skip
_watching: list[list[str]] = []


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _DANGEROUS:
        _watching[-1].append(f"{event} {str(arguments[:1])[:100]}")


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise SystemExit('a model file was run')",))


def test_loading_a_model_folder_compiles_imports_and_executes_nothing(folder: Path) -> None:
    sys.addaudithook(_watch)
    weights = (folder / WEIGHTS_NAME).read_bytes()
    card = (folder / CARD_NAME).read_text()
    evil_cards = [
        card,
        card.replace('"unet"', "\"__import__('os').system('true')\""),
        card.replace('"drawn"', '"!!python/object/apply:os.system [true]"'),
        card.replace('"architecture": {', '"architecture": {"_target_": "antigravity", '),
    ]
    contents = [weights, pickle.dumps(Evil()), weights + pickle.dumps(Evil())]
    load_model(folder)  # whatever is imported late by torch itself is imported now
    for evil_card in evil_cards:
        for content in contents:
            (folder / CARD_NAME).write_text(evil_card)
            (folder / WEIGHTS_NAME).write_bytes(content)
            write_manifest(folder)
            modules = set(sys.modules)
            _watching.append([])
            try:
                read_model(folder)
            except ModelFileError:
                pass
            finally:
                seen = _watching.pop()
            assert seen == []
            assert set(sys.modules) == modules


def test_audit_hook_of_the_previous_test_detects_events() -> None:
    sys.addaudithook(_watch)
    _watching.append([])
    try:
        with pytest.raises(SystemExit):
            pickle.loads(pickle.dumps(Evil()))
    finally:
        seen = _watching.pop()
    assert any(event.startswith("pickle.find_class") for event in seen)
    assert any(event.startswith("exec") for event in seen)


# Whatever the bytes are, the answer is a model or one line


def mutate(content: bytes, order: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(order.choice((1, 1, 2, 5))):
        place = (
            order.randrange(len(changed))
            if order.random() < 0.3
            else order.randrange(min(len(changed), 4000))
        )
        kind = order.randrange(5)
        if kind == 0:
            changed[place] ^= 1 << order.randrange(8)
        elif kind == 1:
            changed[place] = order.randrange(256)
        elif kind == 2:
            del changed[place : place + order.randrange(1, 20)]
        elif kind == 3:
            changed[place:place] = order.choice(
                [b"0", b"9" * 30, b"-", b"[", b"}", b'"', b"NaN", b"1e400", b"\x00", b"F8_E8M0"]
            )
        else:
            changed = changed[: max(1, place)]
        if not changed:
            changed = bytearray(b"\x00")
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [WEIGHTS_NAME, CARD_NAME, MANIFEST_NAME])
def test_changed_bytes_give_a_one_line_error_or_a_model(folder: Path, name: str) -> None:
    order = random.Random(name)
    original = (folder / name).read_bytes()
    refusals = 0
    for _ in range(400):
        (folder / name).write_bytes(mutate(original, order))
        if name != MANIFEST_NAME:
            write_manifest(folder)
        try:
            load_model(folder)
        except ModelFileError as error:
            refusals += 1 + str(error).count("\n") * 1000
    assert 100 < refusals <= 400


@pytest.mark.parametrize(
    "header",
    [
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F8_E8M0", "shape": [4], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}},
        {"a": {"dtype": "C64", "shape": [0], "data_offsets": [0, 0]}},
        {"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 4]}},
        {"__metadata__": {"a": 1}},
        {"a": 5},
        [],
    ],
    ids=str,
)
def test_invalid_safetensors_header_is_rejected(folder: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    (folder / WEIGHTS_NAME).write_bytes(struct.pack("<Q", len(text)) + text + b"\x00" * 4)
    write_manifest(folder)
    assert WEIGHTS_NAME in refused(folder)


def test_equal_cards_compare_equal_and_replace_validates_again() -> None:
    card = make_card()
    assert replace(card, dataset="isic2018").dataset == "isic2018"
    with pytest.raises(ValueError, match="in_channels"):
        replace(card, in_channels=0)
