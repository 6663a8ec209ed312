import signal
import threading

import pytest
import torch
from torch import nn

from segnetr.engine.training.runtime import Runtime, choose_device
from segnetr.engine.training.signals import SignalHandler
from segnetr.errors import STOP_CODES, UsageError

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="about machines without a GPU")


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "cpu:1", "", "cuda:-1", "mps"])
def test_error_for_an_unknown_device_lists_the_choices(name):
    with pytest.raises(UsageError, match=r"unknown device .*auto, cpu"):
        choose_device(name)


@needs_no_gpu
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_error_for_a_missing_device_says_how_to_continue(name):
    with pytest.raises(UsageError, match="0 CUDA devices; use --device cpu"):
        choose_device(name)


@needs_no_gpu
def test_auto_selects_the_cpu_without_a_gpu():
    assert choose_device("auto") == torch.device("cpu")
    assert Runtime("auto", amp="auto").amp_dtype is None


def test_single_process_is_the_main_process():
    with Runtime("cpu") as runtime:
        assert (runtime.rank, runtime.world, runtime.is_main) == (0, 1, True)
        assert runtime.gather("x") == ["x"]
        assert runtime.broadcast({"dice": 0.5}) == {"dice": 0.5}
        model = nn.Conv2d(1, 1, 1)
        assert runtime.prepare(model, compiled=False) is model


def test_autocast_uses_the_requested_type():
    layer, image = nn.Conv2d(1, 1, 1), torch.randn(1, 1, 2, 2)
    for amp, dtype in (("bf16", torch.bfloat16), ("off", torch.float32)):
        with Runtime("cpu", amp=amp).autocast():
            assert layer(image).dtype == dtype


def test_float16_on_a_cpu_is_rejected():
    with pytest.raises(UsageError, match="needs a GPU"):
        Runtime("cpu", amp="fp16")


def test_batch_has_the_requested_memory_layout():
    batch = {"image": torch.randn(2, 3, 4, 4), "mask": torch.zeros(2, 1, 4, 4), "case_id": ["a"]}
    moved = Runtime("cpu").move(batch, channels_last=True)
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved["image"], batch["image"])
    assert moved["case_id"] == ["a"]
    assert Runtime("cpu").move(batch, channels_last=False)["image"].is_contiguous()


@pytest.mark.parametrize(("norm", "expected"), [(1.0, 1.0), (0.0, 5.0), (10.0, 5.0)])
def test_gradient_is_clipped_to_the_maximum_norm(norm, expected):
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer = torch.optim.SGD([weight], lr=1.0)
    found = Runtime("cpu").clip([weight], optimizer, norm=norm)
    assert found.item() == pytest.approx(5.0)
    assert weight.grad.norm().item() == pytest.approx(expected, abs=1e-4)


def test_deterministic_mode_is_restored_even_after_an_error():
    runtime = Runtime("cpu")
    seen = []

    def fail():
        with runtime.determinism(wanted=True):
            seen.append(torch.are_deterministic_algorithms_enabled())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_first_signal_is_caught_and_a_later_one_has_its_default_effect(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("segnetr.engine.training.signals.time.monotonic", lambda: clock[0])
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with SignalHandler() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.caught == "interrupted"
        # Schedulers send several signals for one request.
        clock[0] = 1.9
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.caught == "interrupted"
        clock[0] = 2.1
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_later_signals_are_ignored_under_torchrun(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("segnetr.engine.training.signals.time.monotonic", lambda: clock[0])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with SignalHandler() as interrupts:
        signal.raise_signal(signal.SIGTERM)
        clock[0] = 60.0
        signal.raise_signal(signal.SIGTERM)
        assert interrupts.caught == "terminated"


@pytest.mark.parametrize(
    ("number", "caught", "code"),
    [
        (signal.SIGINT, "interrupted", 130),
        (signal.SIGTERM, "terminated", 143),
        (signal.SIGHUP, "hangup", 129),
        (signal.SIGUSR1, "usr1", 138),
        (signal.SIGUSR2, "usr2", 140),
    ],
)
def test_each_stop_signal_is_caught_and_has_its_exit_code(number, caught, code):
    # nohup ignores SIGHUP, and a signal that is ignored at the start stays ignored.
    before = signal.signal(number, signal.default_int_handler)
    try:
        with SignalHandler() as interrupts:
            signal.raise_signal(number)
            assert interrupts.caught == caught
        assert STOP_CODES[caught] == code == 128 + number
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ignored_signal_stays_ignored(number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with SignalHandler() as interrupts:
            signal.raise_signal(number)
        assert interrupts.caught is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_signal_handler_is_not_installed_outside_the_main_thread():
    caught = []

    def enter():
        with SignalHandler() as interrupts:
            caught.append(interrupts.caught)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert caught == [None]
