"""The networks that `backbones.py` times: ours, and those of transformers and timm.

timm imports torchvision, but does not need it for these networks: a stand-in replaces it.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybrid_backbones import create_model

OURS, FUSED = "ours", "ours, fused"
# Our networks, and the packages that also have them.
PEERS = {
    "cvt_13": ("transformers",),
    "mobilevit_s": ("transformers", "timm"),
    "swin_tiny": ("transformers", "timm"),
}
# timm does not drop anything by default, so all train without dropout.
_WITHOUT_CHANCE: dict[str, dict[str, float]] = {
    "cvt_13": {"drop_path": 0.0},
    "mobilevit_s": {"dropout": 0.0, "head_dropout": 0.0},
    "swin_tiny": {"drop_path": 0.0},
}
_TIMM_NAMES = {"mobilevit_s": "mobilevit_s", "swin_tiny": "swin_tiny_patch4_window7_224"}


def import_timm(folder: Path) -> None:
    """Import timm, with a temporary stand-in for torchvision."""
    sys.path.append(str(folder))
    stand_in = StandIn("torchvision")
    sys.meta_path.append(stand_in)
    importlib.import_module("timm")
    sys.meta_path.remove(stand_in)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a missing package as empty modules, whose attributes are empty classes."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find the package and everything below it."""
        del path, target
        if name.partition(".")[0] != self.package:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Return an empty module."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = make_empty  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Do nothing."""


class Empty(type):
    """A class whose attributes are all empty classes."""

    def __getattr__(cls, name: str) -> type:
        """Return an empty class."""
        return make_empty(name)


def make_empty(name: str) -> type:
    """Make an empty class; special names stay unknown."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Empty(name, (), {})


def build(name: str, maker: str) -> nn.Module:
    """Build a network of ours, or the same of `maker`, with 1000 classes."""
    torch.manual_seed(0)
    if maker in (OURS, FUSED):
        return create_model(name, **_WITHOUT_CHANCE.get(name, {}))
    if maker == "timm":
        import timm

        return timm.create_model(_TIMM_NAMES[name])
    import transformers as theirs

    made: nn.Module = {
        "cvt_13": lambda: theirs.CvtForImageClassification(
            theirs.CvtConfig(num_labels=1000, drop_path_rate=[0.0, 0.0, 0.0])
        ),
        "mobilevit_s": lambda: theirs.MobileViTForImageClassification(
            theirs.MobileViTConfig(
                num_labels=1000, hidden_dropout_prob=0.0, classifier_dropout_prob=0.0
            )
        ),
        "swin_tiny": lambda: theirs.SwinForImageClassification(
            theirs.SwinConfig(num_labels=1000, drop_path_rate=0.0)
        ),
    }[name]()
    return made
