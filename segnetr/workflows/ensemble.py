"""The networks of a cross-validation as one: the mean of their probabilities."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from segnetr.engine.fold_dir import FoldDir
from segnetr.errors import ModelFileError
from segnetr.outputs.model_file import ModelCard, load_model


class Ensemble(nn.Module):
    """Averages the probabilities of networks with the same classes.

    Args:
        members: Each maps images (N, C, H, W) to logits (N, K, H, W).
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """Give logits (N, K, H, W) whose softmax is the mean of the members' probabilities."""
        total = torch.stack([member(image).float().softmax(dim=1) for member in self.members])
        # Away from 0, whose logarithm is none; softmax undoes the logarithm, as they sum to 1.
        return total.mean(dim=0).clamp_min(torch.finfo(torch.float32).tiny).log()


def load_ensemble(folder: Path) -> tuple[ModelCard, nn.Module]:
    """Read the models of all folds.

    Raises:
        ModelFileError: If a fold is not done, its model cannot be trusted, or they do not belong
            together.
    """
    paths = FoldDir(folder).models()
    loaded = [load_model(path) for path in paths]
    card = loaded[0][0]
    same = replace(card, split_sha256="", scores={}, versions={})
    for path, (other, _) in zip(paths, loaded, strict=True):
        if replace(other, split_sha256="", scores={}, versions={}) != same:
            raise ModelFileError(f"{path}: its model is not of the kind of {paths[0]}'s")
    return replace(same, versions=card.versions), Ensemble([network for _, network in loaded])
