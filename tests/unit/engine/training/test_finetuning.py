"""Test an encoder with a lower learning rate, layer decay, freezing, and exact resume."""

# ruff: noqa: ARG002 - observers take what they are given
import importlib.util
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

import hybrid_backbones
from segnetr.config.schema.segmentation import TrainConfig
from segnetr.engine.training.checkpoint import read_run_checkpoint
from segnetr.engine.training.finetuning import EncoderFinetuning, number_layers
from segnetr.engine.training.optim import build_optimizer, set_learning_rate
from segnetr.engine.training.run_dir import RunDir
from segnetr.engine.training.tasks import SegmentationTask
from segnetr.engine.training.trainer import Trainer
from segnetr.losses import build_loss

_PATH = Path(__file__).parents[3] / "support" / "engine_run.py"
_SPEC = importlib.util.spec_from_file_location("engine_run", _PATH)
assert _SPEC is not None
engine_run = importlib.util.module_from_spec(_SPEC)
assert _SPEC.loader is not None
_SPEC.loader.exec_module(engine_run)

# Twelve cases, two per step: an epoch has six steps.
CONFIG = TrainConfig(
    steps=9, batch_size=2, warmup_steps=2, validate_every=3, save_every=1, device="cpu", lr=1e-2
)


class Network(nn.Module):
    """A network with an encoder of two blocks, batch norm and dropout, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Dropout2d(0.3),
        )
        self.blocks = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.head = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.encoder(image)
        for block in self.blocks:
            x = block(x).relu()
        logits: torch.Tensor = self.head(x)
        return logits


class Stopper:
    """Stops the training at a step, as a user would."""

    def __init__(self, at: int = 0) -> None:
        self.at = at

    def on_step(self, step: int, total: int, terms: object, rate: float | None) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_validation(self, step: int, scores: object, *, best: bool) -> None: ...

    def on_message(self, text: str) -> None: ...


def train(out: Path, *, epochs: int, stop: int = 0, resume: bool = False) -> Network:
    torch.manual_seed(5)
    network = Network()
    batches = engine_run.make_trainer(out, CONFIG)._train_batches
    trainer = Trainer(
        network,
        SegmentationTask(build_loss("ce", num_classes=2), num_classes=2),
        config=CONFIG,
        run=RunDir(out),
        cases=12,
        train_batches=batches,
        validation_batches=None,
        identity={"config": "c"},
        progress=Stopper(stop),
        encoder=EncoderFinetuning(module=network.encoder, lr_factor=0.1, frozen_epochs=epochs),
    )
    trainer.fit(resume=resume)
    return network


def test_frozen_encoder_and_its_statistics_do_not_change_during_training(
    tmp_path: Path,
) -> None:
    torch.manual_seed(5)
    before = {key: value.clone() for key, value in Network().state_dict().items()}
    after = train(tmp_path / "run", epochs=2).state_dict()
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {key for key in before if not key.startswith("encoder.")}


def test_encoder_trains_after_unfreezing_and_run_stopped_while_frozen_resumes_exactly(
    tmp_path: Path,
) -> None:
    whole = train(tmp_path / "whole", epochs=1).state_dict()
    train(tmp_path / "broken", epochs=1, stop=4)
    stopped = read_run_checkpoint(tmp_path / "broken" / "checkpoints" / "last")
    assert stopped.state.step == 4
    assert not [key for key in stopped.optimizer if ".encoder." in key]
    again = train(tmp_path / "broken", epochs=1, resume=True).state_dict()
    assert [key for key in whole if not torch.equal(whole[key], again[key])] == []
    torch.manual_seed(5)
    start = Network().state_dict()
    assert not torch.equal(start["encoder.0.weight"], whole["encoder.0.weight"])
    assert not torch.equal(start["encoder.1.running_mean"], whole["encoder.1.running_mean"])


def test_encoder_learning_rate_is_scaled_and_decays_by_layer() -> None:
    network = Network()
    training = EncoderFinetuning(module=network.blocks, lr_factor=0.5, layer_decay=0.1)
    optimizer = build_optimizer(network, CONFIG, factors=training.factors(network))
    set_learning_rate(optimizer, 2.0)
    groups = [(p, g) for g in optimizer.param_groups for p in g["params"]]
    rates = {id(p): group["lr"] for p, group in groups}
    assert len(groups) == len(list(network.parameters())) == len(rates)
    assert rates[id(network.head.weight)] == rates[id(network.encoder[0].weight)] == 2.0
    assert rates[id(network.blocks[1].weight)] == pytest.approx(0.1)
    assert rates[id(network.blocks[0].weight)] == pytest.approx(0.01)


def test_layers_are_numbered_by_block_from_the_input() -> None:
    network = Network()
    depths = number_layers(network)
    named = {name: depths[id(p)] for name, p in network.named_parameters()}
    assert named["encoder.0.weight"] == named["encoder.1.bias"] == 0
    assert named["blocks.0.weight"] == named["blocks.0.bias"] == 1
    assert named["blocks.1.weight"] == 2
    assert named["head.weight"] == 2


def test_backbone_has_factors_for_exactly_its_own_parameters() -> None:
    torch.manual_seed(0)
    backbone = hybrid_backbones.create_model("mobile_former_26m", num_classes=0)
    network = nn.ModuleDict({"encoder": backbone, "decoder": nn.Conv2d(3, 3, 1)})
    factors = EncoderFinetuning(module=backbone, lr_factor=0.5, layer_decay=0.9).factors(network)
    assert set(factors) == {n for n, _ in network.named_parameters() if n.startswith("encoder.")}
    assert 0 < min(factors.values()) < max(factors.values()) <= 0.5
