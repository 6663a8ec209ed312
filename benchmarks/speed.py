"""Compare speed and memory with the peers: one process, interleaved, medians.

Times inference and a training step (forward, backward, optimizer) of each network on the same
images, each in the faster memory layout, eager and compiled. The process keeps freed memory for all
networks, as `segnetr train` and `segnetr predict` do (`--plain-allocator` turns this off). Report
the ratios to the first network, by default the paper's U-Net.

    python benchmarks/speed.py --models unet segnetr segnetr_s --modes eval train

Writes benchmarks/results/speed.json and prints the table. `bytes` is the sum of what the leaf
modules of the plain network read and write during inference, from hooks. `roofline` is the minimum
time at the measured matrix-product and copy rates of this machine, divided by the measured time.
Peak memory is the growth of a new process over two training steps.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from segnetr.config.load import load_config
from segnetr.engine.inference.allocator import tune_malloc
from segnetr.models.build import build_model
from segnetr.models.cost import count_macs, count_parameters
from segnetr.outputs.models.provenance import collect_provenance

RESULTS = Path(__file__).parent / "results" / "speed.json"
MODELS = ["unet", "segnetr", "segnetr_s", "basic_unet", "attention_unet", "swin_unetr"]
MODES = ["eval", "train", "eval-compiled", "train-compiled"]


def main() -> None:
    """Measure and print."""
    arguments = parse_arguments()
    if not arguments.plain_allocator:
        tune_malloc()
    if arguments.child:
        print(json.dumps(measure_memory(arguments.models[0], arguments)))
        return
    machine = measure_machine()
    image = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size)
    rows = {name: describe(name, image, arguments) for name in arguments.models}
    for mode in arguments.modes:
        for name, seconds in time_in_turns(mode, image, arguments).items():
            rows[name][mode] = seconds
    content = {
        "command": "python benchmarks/speed.py " + " ".join(sys.argv[1:]),
        "batch_size": arguments.batch_size,
        "size": arguments.size,
        "machine": machine,
        "rows": rows,
        "made_by": collect_provenance(),
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")
    print(make_table(rows, arguments, machine))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, help="the first is the reference")
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument(
        "--plain-allocator",
        action="store_true",
        help="return freed memory to the system (the default of glibc)",
    )
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def build(name: str, size: int) -> nn.Module:
    """Build a packaged network for two classes."""
    config = load_config([f"model/{name}"]).model
    torch.manual_seed(0)
    return build_model(config, in_channels=3, num_classes=2, image_size=(size, size))


def describe(name: str, image: Tensor, arguments: argparse.Namespace) -> dict[str, float]:
    """Return parameters and multiply-adds, and peak memory measured in a new process."""
    model = build(name, arguments.size).eval()
    command = [sys.executable, __file__, "--child", "--models", name]
    command += ["--batch-size", str(arguments.batch_size), "--size", str(arguments.size)]
    command += ["--plain-allocator"] * arguments.plain_allocator
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    return {
        "parameters": count_parameters(model),
        "gmac": count_macs(model, (1, *image.shape[1:])) / 1e9,
        "gbytes": count_bytes(model, image) / 1e9,
        "train_peak_mib": json.loads(child.stdout),
    }


def count_bytes(model: nn.Module, image: Tensor) -> int:
    """Return the bytes that leaf modules read and write in one forward pass."""
    total = 0

    def add(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        tensors = [item for item in (*inputs, output) if isinstance(item, Tensor)]
        total += sum(item.numel() * item.element_size() for item in tensors)

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [module.register_forward_hook(add) for module in leaves]
    with torch.enable_grad():  # the inference kernel calls no modules
        model(image)
    for handle in handles:
        handle.remove()
    return total


def measure_memory(name: str, arguments: argparse.Namespace) -> int:
    """Return the growth of this process over two training steps, in MiB."""
    image = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size)
    step = make_step(build(name, arguments.size), image, "train")
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
    before = read_status("VmRSS")
    step()
    step()
    return (read_status("VmHWM") - before) // 1024


def read_status(field: str) -> int:
    """Return a memory figure of this process in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


def measure_machine() -> dict[str, float]:
    """Return the rates of a matrix product and of a copy, the limits of the roofline."""
    a, b = torch.randn(1536, 1536), torch.randn(1536, 1536)
    source, target = torch.randn(2**26), torch.empty(2**26)
    product = min(clock(lambda: torch.mm(a, b)) for _ in range(9))
    copy = min(clock(lambda: target.copy_(source)) for _ in range(9))
    return {"gmac_per_s": 1536**3 / 1e9 / product, "gbytes_per_s": 2 * 2**28 / 1e9 / copy}


def time_in_turns(mode: str, image: Tensor, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of all networks in one mode, interleaved."""
    steps: dict[str, Callable[[], None]] = {}
    for name in arguments.models:
        # One network per layout, because the weights have the layout of the image.
        candidates = [
            make_step(build(name, arguments.size), image.contiguous(memory_format=layout), mode)
            for layout in LAYOUTS
        ]
        steps[name] = min(candidates, key=lambda step: (step(), clock(step))[1])
    passed: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            passed[name].append(clock(step))
    return {name: statistics.median(times) for name, times in passed.items()}


LAYOUTS = (torch.contiguous_format, torch.channels_last)

# All networks share the code of `SegmentationModel.forward`. Above its limit of graphs per
# function, torch only warns and runs further networks without compiling them.
torch._dynamo.config.recompile_limit = 64


def make_step(model: nn.Module, image: Tensor, mode: str) -> Callable[[], None]:
    """Return the timed function: a forward pass or a training step, in the layout of the image."""
    is_training = mode.startswith("train")
    last = image.is_contiguous(memory_format=torch.channels_last)
    model = model.train(is_training).to(
        memory_format=torch.channels_last if last else torch.contiguous_format
    )
    # Static shapes: one process compiles several networks that share code, which torch would
    # otherwise take for one network at changing sizes.
    run = torch.compile(model, dynamic=False) if mode.endswith("compiled") else model
    if not is_training:
        return lambda: predict(run, image)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    mask = torch.randint(0, 2, (image.shape[0], *image.shape[2:]))

    def train() -> None:
        nn.functional.cross_entropy(run(image), mask).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return train


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor) -> None:
    """Run one forward pass without gradient."""
    model(image)


def clock(step: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def make_table(
    rows: dict[str, dict[str, float]], arguments: argparse.Namespace, machine: dict[str, float]
) -> str:
    """Return the table; times are ratios to the first network, above 1 is faster."""
    modes = arguments.modes
    head = ["network", "M", "GMAC", "GB", *modes, "roofline", "train MiB"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    first = rows[arguments.models[0]]
    for name, row in rows.items():
        work = row["gmac"] * arguments.batch_size / machine["gmac_per_s"]
        traffic = row["gbytes"] / machine["gbytes_per_s"]
        share = f"{max(work, traffic) / row['eval']:.2f}" if "eval" in row else ""
        times = [f"{first[mode] / row[mode]:.2f}x ({row[mode]:.2f} s)" for mode in modes]
        cells = [f"{row['parameters'] / 1e6:.2f}", f"{row['gmac']:.2f}", f"{row['gbytes']:.2f}"]
        lines.append(
            "| " + " | ".join([name, *cells, *times, share, str(row["train_peak_mib"])]) + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
