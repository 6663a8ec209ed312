"""The networks of a cross-validation answer together with the mean of their probabilities."""

import json

import pytest
import torch
from torch import nn

from segnetr.engine.fold_dir import FoldDir, is_cross_validation
from segnetr.errors import ModelFileError, UsageError
from segnetr.workflows.ensemble import Ensemble


def test_probabilities_of_an_ensemble_are_the_mean_of_its_members():
    torch.manual_seed(0)
    members = [nn.Conv2d(3, 4, 1) for _ in range(3)]
    image = torch.randn(2, 3, 5, 6)
    wanted = torch.stack([member(image).softmax(1) for member in members]).mean(0)
    assert torch.allclose(Ensemble(members)(image).softmax(1), wanted, atol=1e-6)


def test_members_that_are_certain_give_finite_answers():
    class Certain(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.stack([image * 0 + 1e4, image * 0 - 1e4], 1)

    answer = Ensemble([Certain(), Certain()])(torch.zeros(1, 2, 2))
    assert torch.isfinite(answer).all()
    assert torch.allclose(answer.softmax(1)[:, 0], torch.ones(1, 2, 2))


def test_folder_remembers_how_many_folds_it_is_for(tmp_path):
    home = FoldDir(tmp_path / "cv")
    assert not is_cross_validation(home.path)
    home.open(3)
    home.open(3)
    assert is_cross_validation(home.path)
    assert home.missing() == [1, 2, 3]
    with pytest.raises(UsageError, match="divided into 3 folds, not 5"):
        home.open(5)
    with pytest.raises(ModelFileError, match=r"0 of 3 folds are done.*fold-1"):
        home.models()


def test_index_that_is_none_and_a_run_without_folds_are_refused(tmp_path):
    home = FoldDir(tmp_path)
    home.index.write_text(json.dumps({"format": "other", "folds": 3}))
    with pytest.raises(ModelFileError, match="no index"):
        home.count()
    other = FoldDir(tmp_path / "run")
    other.run.last.mkdir(parents=True)
    with pytest.raises(UsageError, match="without folds"):
        other.open(3)
