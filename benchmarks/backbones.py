"""Compare the speed of the backbones with transformers and timm, interleaved in one process.

    pip install --no-deps --target FOLDER timm
    python benchmarks/backbones.py --timm FOLDER

Random weights and published image sizes; float32 on a CPU, or bfloat16 autocast on a GPU if there
is one. Each network runs a pass without gradient and a training step (loss, gradients, AdamW;
without dropout and stochastic depth), eager and compiled. On a CPU with one thread, the ratios are
those of the CPU time of this process, which other load on the machine disturbs less than the wall
clock; both are recorded. With more `--threads`, the wall clock counts. Peak memory is the growth of
a fresh process over two passes or two steps (on a GPU: the allocator's peak). The mode `original`
compares networks that no package contains with the recorded times of their published code, see
`backbone_originals.py`.

Results replace those of the same kind in benchmarks/results/backbones.json, so that the benchmark
can run in several parts. The table of the whole file is printed.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from backbone_networks import FUSED, OURS, PEERS, build, import_timm
from backbone_originals import ORIGINALS, compare_with_original
from backbone_results import merge_rows, read_rows, render_table, write_rows
from torch import Tensor, nn

from hybrid_backbones import fuse, get_spec

RESULTS = Path(__file__).parent / "results" / "backbones.json"
MODES = ("eval", "train", "eval-compiled", "train-compiled", "original")
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    if arguments.timm:
        import_timm(arguments.timm)
    torch.set_num_threads(arguments.threads)
    if arguments.child:
        name, maker, mode = arguments.child
        print(json.dumps(measure_memory(name, maker, mode, arguments)))
        return
    for mode in arguments.modes:
        for name in arguments.models or (ORIGINALS if mode == "original" else PEERS):
            if name in (ORIGINALS if mode == "original" else PEERS):
                keep(measure(name, mode, arguments), arguments)
    print(render_table(read_rows(arguments.out)))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=[*PEERS, *ORIGINALS], help="default: all")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=MODES)
    parser.add_argument("--measure", nargs="+", default=["time", "memory"], help="time, memory")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--peers", nargs="+", default=["transformers", "timm"], help="default: both"
    )
    parser.add_argument("--timm", type=Path, help="folder that timm was installed into")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(name: str, mode: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one network of ours and its peers in one mode."""
    if mode == "original":
        return [time_original(name, arguments)]
    makers = contenders(name, mode, arguments)
    rows = [{"network": name, "mode": mode, "by": maker} for maker in makers]
    if "time" in arguments.measure:
        timed = time_peers(name, mode, makers, arguments)
        rows = [{**row, **figures} for row, figures in zip(rows, timed, strict=True)]
    if "memory" in arguments.measure:
        for row in rows:
            row["peak_mib"] = read_child(name, row["by"], mode, arguments)
    return rows


def keep(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Add the results to the file, with the conditions of the measurement."""
    facts = {
        "batch": arguments.batch,
        "threads": arguments.threads,
        "device": device_name(),
        "precision": "bfloat16" if device() == "cuda" else "float32",
        "clock": "processor" if uses_processor_time() else "wall",  # words: allow (stored value)
    }
    if "time" in arguments.measure:
        facts["repeats"] = arguments.repeats
    rows = [{**row, **facts} for row in rows]
    for row in rows:
        print(json.dumps(row), file=sys.stderr, flush=True)
    write_rows(arguments.out, merge_rows(read_rows(arguments.out), rows), device=device())


def contenders(name: str, mode: str, arguments: argparse.Namespace) -> list[str]:
    """Return the implementations to time: ours first, then those of other packages."""
    peers = [peer for peer in PEERS[name] if peer in arguments.peers]
    peers = [peer for peer in peers if peer != "timm" or arguments.timm]
    # A compiler folds the norms itself.
    return [OURS, *([FUSED] if mode == "eval" else []), *peers]


def time_peers(
    name: str, mode: str, makers: list[str], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Time the implementations of one network, interleaved."""
    image = make_images(name, arguments.batch)
    # Reset once for all networks: without its graph, a network would be compiled again when timed.
    torch.compiler.reset()
    steps = [best_step(name, maker, mode, image) for maker in makers]
    passed = time_in_turns(steps, arguments.repeats)
    clock = 0 if uses_processor_time() else 1
    # Ratios of neighboring calls, so that other load affects both.
    return [
        {
            "seconds": statistics.median(taken[clock] for taken in times),
            "wall_seconds": statistics.median(taken[1] for taken in times),
            "ours_faster": median_ratio(passed[0], times, clock),
            "ours_faster_by_wall": median_ratio(passed[0], times, 1),
        }
        for times in passed
    ]


def time_original(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time one of our networks and the reference recorded with its published code, interleaved."""
    if not arguments.timm:
        raise SystemExit(
            "--modes original needs --timm FOLDER: the yardsticks are networks of timm"
        )
    network, maker = ORIGINALS[name].yardstick
    steps = [
        best_step(name, OURS, "eval", make_images(name, arguments.batch)),
        # Channels first, as in the recorded measurement.
        make_step(network, maker, "eval", make_images(network, arguments.batch)),
    ]
    clock = 0 if uses_processor_time() else 1
    ours, yardstick = (
        statistics.median(taken[clock] for taken in times)
        for times in time_in_turns(steps, arguments.repeats)
    )
    return compare_with_original(name, ours=ours, yardstick=yardstick)


Taken = tuple[float, float]


def time_in_turns(steps: list[Callable[[], None]], repeats: int) -> list[list[Taken]]:
    """Return CPU and wall seconds of each call of each step, interleaved."""
    passed: list[list[Taken]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, times in zip(steps, passed, strict=True):
            times.append(clock_call(step))
    return passed


def clock_call(step: Callable[[], object]) -> Taken:
    """Return the CPU and wall seconds of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    step()
    return time.process_time() - cpu, time.perf_counter() - wall


def median_ratio(ours: list[Taken], theirs: list[Taken], clock: int) -> float:
    """Return the median ratio of their time to ours over all turns."""
    return statistics.median(b[clock] / a[clock] for a, b in zip(ours, theirs, strict=True))


def make_images(name: str, batch: int) -> Tensor:
    """Return random images of a network's published size."""
    side = get_spec(name).image_size
    return torch.randn(batch, 3, side, side, device=device())


def best_step(name: str, maker: str, mode: str, image: Tensor) -> Callable[[], None]:
    """Return the step to time, in the faster of two memory formats, after a first call."""
    if "compiled" in mode or (maker in (OURS, FUSED) and device() == "cpu"):
        # Ours converts the memory format itself.
        step = make_step(name, maker, mode, image)
        step()
        return step
    made = [make_step(name, maker, mode, image.contiguous(memory_format=f)) for f in LAYOUTS]
    return min(made, key=lambda step: (step(), clock_call(step)[0])[1])


def make_step(name: str, maker: str, mode: str, image: Tensor) -> Callable[[], None]:
    """Return an inference pass or a training step."""
    is_training = mode.startswith("train")
    last = image.is_contiguous(memory_format=torch.channels_last)
    model = build(name, maker).to(image.device).train(is_training)
    model = model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    if maker == FUSED:
        model = fuse(model)
    run = torch.compile(model, dynamic=False) if mode.endswith("compiled") else model
    if not is_training:
        return lambda: predict(run, image)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    labels = torch.zeros(len(image), dtype=torch.long, device=image.device)

    def train() -> None:
        with precision():
            loss = nn.functional.cross_entropy(logits_of(run(image)).float(), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        finish()

    return train


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor) -> None:
    """Run one pass without gradient."""
    with precision():
        model(image)
    finish()


def logits_of(output: Any) -> Tensor:
    """Return the logits from a network's output."""
    return output if isinstance(output, Tensor) else output.logits


def device() -> str:
    """Return the name of the device."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """Return the name of the GPU, or cpu."""
    return torch.cuda.get_device_name() if device() == "cuda" else "cpu"


def precision() -> AbstractContextManager[Any]:
    """Return bfloat16 autocast on a GPU, nothing on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device() == "cuda" else nullcontext()


def finish() -> None:
    """Wait for the GPU."""
    if device() == "cuda":
        torch.cuda.synchronize()


def uses_processor_time() -> bool:
    """Return whether CPU time counts; it would include waiting threads, which spin."""
    return device() == "cpu" and torch.get_num_threads() == 1


def read_child(name: str, maker: str, mode: str, arguments: argparse.Namespace) -> int:
    """Measure peak memory in a separate process, in MiB."""
    command = [sys.executable, __file__, "--child", name, maker, mode]
    command += ["--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    command += ["--timm", str(arguments.timm)] if maker == "timm" else []
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(child.stdout)


def measure_memory(name: str, maker: str, mode: str, arguments: argparse.Namespace) -> int:
    """Return the memory growth of this process over two steps, in MiB (Linux)."""
    step = make_step(name, maker, mode, make_images(name, arguments.batch))
    if "compiled" in mode:
        # Exclude the memory of the compiler.
        step()
        give_back_freed()
    if device() == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        return (torch.cuda.max_memory_allocated() - before) // 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current use
    before = read_status("VmRSS")
    step()
    step()
    return (read_status("VmHWM") - before) // 1024


def give_back_freed() -> None:
    """Return freed memory to the system, which counts it as used (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def read_status(field: str) -> int:
    """Read a size of this process in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


if __name__ == "__main__":
    main()
