"""Shared steps of all trainings."""

import pytest
import torch

from segnetr.errors import UsageError
from segnetr.workflows.training import run_setup


@pytest.mark.parametrize(("kind", "kept"), [("cpu", 1), ("cuda", 0)])
def test_malloc_is_tuned_on_a_cpu_only(monkeypatch, kind, kept) -> None:
    calls = []
    monkeypatch.setattr(run_setup, "choose_device", lambda _: torch.device(kind))
    monkeypatch.setattr(run_setup, "tune_malloc", lambda: calls.append(kind))
    run_setup.setup_process(kind)
    assert len(calls) == kept


def test_device_that_is_not_there_is_refused_and_nothing_is_set(monkeypatch) -> None:
    monkeypatch.setattr(run_setup, "tune_malloc", lambda: pytest.fail("set"))
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        run_setup.setup_process("tpu")
