"""Time the backbones beside those of transformers and timm: in turns, in one process, medians.

    pip install --no-deps --target FOLDER timm
    python benchmarks/backbones.py --timm FOLDER [--compiled] [--batch 8] [--repeats 7]

Each network runs in the memory layout that suits it best, with random weights, in float32 on the
CPU or in bfloat16 on a GPU where there is one: a pass without gradient, and a training step (loss,
gradients, AdamW). On a CPU the clock is the processor time of this process on one thread, which
other load on the machine disturbs less than it does the wall clock; `--threads` takes more, on the
wall clock. Peak memory is the growth of a fresh process over two passes or two steps (on a GPU:
the allocator's peak). Writes benchmarks/results/backbones.json and prints the table.

timm needs no torchvision for what is timed here, but imports it: a stand-in takes its place.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import json
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_backbones import create_model, fuse, get_entry
from segnetr.outputs.provenance import collect_provenance

RESULTS = Path(__file__).parent / "results" / "backbones.json"
# Ours, and who else has it.
PEERS = {
    "cvt_13": ("transformers",),
    "mobilevit_s": ("transformers", "timm"),
    "swin_tiny": ("transformers", "timm"),
}
TIMM_NAMES = {"mobilevit_s": "mobilevit_s", "swin_tiny": "swin_tiny_patch4_window7_224"}
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
    modes = [f"{mode}-compiled" if arguments.compiled else mode for mode in arguments.modes]
    rows: list[dict[str, Any]] = []
    for name in arguments.models:
        for mode in modes:
            rows += compare(name, mode, arguments)
            write_results(rows, arguments)
    print(make_table(rows))


def write_results(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Write what was measured so far, with what it was measured on."""
    content = {
        "command": "python benchmarks/backbones.py "
        + " ".join("FOLDER" if word == str(arguments.timm) else word for word in sys.argv[1:]),
        "device": device_name(),
        "threads": arguments.threads,
        "clock": "processor time" if uses_processor_time() else "wall clock",
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "rows": rows,
        "made_by": collect_provenance(),
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(content, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--modes", nargs="+", default=["eval", "train"], choices=["eval", "train"])
    parser.add_argument("--compiled", action="store_true", help="through torch.compile")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--timm", type=Path, help="folder that timm was installed into")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def import_timm(folder: Path) -> None:
    """Import timm, with a stand-in for torchvision that is gone afterwards."""
    sys.path.append(str(folder))
    stand_in = StandIn("torchvision")
    sys.meta_path.append(stand_in)
    importlib.import_module("timm")
    sys.meta_path.remove(stand_in)
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports a package that is not there as empty modules, whose names are empty classes."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Answer for the package and all below it."""
        del path, target
        if name.partition(".")[0] != self.package:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """Make the empty module."""
        module = types.ModuleType(spec.name)
        module.__getattr__ = make_empty  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Run nothing."""


class Empty(type):
    """A class whose every attribute is there and is an empty class."""

    def __getattr__(cls, name: str) -> type:
        """Give one."""
        return make_empty(name)


def make_empty(name: str) -> type:
    """Make an empty class; special names stay unknown."""
    if name.startswith("__"):
        raise AttributeError(name)
    return Empty(name, (), {})


def build(name: str, maker: str) -> nn.Module:
    """Build a network of ours, or the same of `maker`, with 1000 classes."""
    torch.manual_seed(0)
    if maker in ("ours", "ours, fused"):
        return create_model(name)
    if maker == "timm":
        import timm

        return timm.create_model(TIMM_NAMES[name])
    import transformers as theirs

    made: nn.Module = {
        "cvt_13": lambda: theirs.CvtForImageClassification(theirs.CvtConfig(num_labels=1000)),
        "mobilevit_s": lambda: theirs.MobileViTForImageClassification(
            theirs.MobileViTConfig(num_labels=1000)
        ),
        "swin_tiny": lambda: theirs.SwinForImageClassification(theirs.SwinConfig(num_labels=1000)),
    }[name]()
    return made


def contenders(name: str, mode: str, arguments: argparse.Namespace) -> list[str]:
    """Name who is timed: ours first, then its peers."""
    peers = [peer for peer in PEERS[name] if peer != "timm" or arguments.timm]
    return ["ours", *(["ours, fused"] if mode.startswith("eval") else []), *peers]


def compare(name: str, mode: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time one network of ours and its peers in turns."""
    side = get_entry(name).image_size
    image = torch.randn(arguments.batch, 3, side, side, device=device())
    steps = {
        maker: best_step(name, maker, mode, image) for maker in contenders(name, mode, arguments)
    }
    passed: dict[str, list[float]] = {maker: [] for maker in steps}
    for _ in range(arguments.repeats):
        for maker, step in steps.items():
            passed[maker].append(clock(step))
    ours = passed["ours"]
    rows = []
    for maker, times in passed.items():
        rows.append(
            {
                "network": name,
                "mode": mode,
                "by": maker,
                "seconds": statistics.median(times),
                # Of pairs that ran beside each other, so that other load falls on both.
                "ours_faster": statistics.median(b / a for a, b in zip(ours, times, strict=True)),
                "peak_mib": read_child(name, maker, mode, arguments),
            }
        )
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def best_step(name: str, maker: str, mode: str, image: Tensor) -> Callable[[], None]:
    """Give what is timed, in the faster of the two memory layouts, after a first call."""
    if "compiled" in mode:
        torch.compiler.reset()
    if "compiled" in mode or (maker.startswith("ours") and device() == "cpu"):
        # Ours puts the layout right by itself there.
        step = make_step(name, maker, mode, image)
        step()
        return step
    made = [make_step(name, maker, mode, image.contiguous(memory_format=f)) for f in LAYOUTS]
    return min(made, key=lambda step: (step(), clock(step))[1])


def make_step(name: str, maker: str, mode: str, image: Tensor) -> Callable[[], None]:
    """Give a pass, or a step of training."""
    is_training = mode.startswith("train")
    last = image.is_contiguous(memory_format=torch.channels_last)
    model = build(name, maker).to(image.device).train(is_training)
    model = model.to(memory_format=torch.channels_last if last else torch.contiguous_format)
    if maker == "ours, fused":
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
    """Give the logits of what a network returns."""
    return output if isinstance(output, Tensor) else output.logits


def device() -> str:
    """Name where it runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_name() -> str:
    """Name the GPU, or say cpu."""
    return torch.cuda.get_device_name() if device() == "cuda" else "cpu"


def precision() -> AbstractContextManager[Any]:
    """Give bfloat16 on a GPU."""
    return torch.autocast("cuda", torch.bfloat16) if device() == "cuda" else nullcontext()


def finish() -> None:
    """Wait for the GPU."""
    if device() == "cuda":
        torch.cuda.synchronize()


def clock(step: Callable[[], object]) -> float:
    """Give the seconds one call takes."""
    read = time.process_time if uses_processor_time() else time.perf_counter
    start = read()
    step()
    return read() - start


def uses_processor_time() -> bool:
    """Say which clock is used: threads that wait for each other spin, and would be counted."""
    return device() == "cpu" and torch.get_num_threads() == 1


def read_child(name: str, maker: str, mode: str, arguments: argparse.Namespace) -> int | None:
    """Measure peak memory in a process of its own, in MiB; None for compiled networks."""
    if mode.endswith("compiled"):
        return None
    command = [sys.executable, __file__, "--child", name, maker, mode]
    command += ["--batch", str(arguments.batch), "--threads", str(arguments.threads)]
    command += ["--timm", str(arguments.timm)] if maker == "timm" else []
    child = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(child.stdout)


def measure_memory(name: str, maker: str, mode: str, arguments: argparse.Namespace) -> int:
    """Give the growth of this process over two steps, in MiB (Linux)."""
    side = get_entry(name).image_size
    image = torch.randn(arguments.batch, 3, side, side, device=device())
    step = make_step(name, maker, mode, image)
    if device() == "cuda":
        before = torch.cuda.memory_allocated()
        step()
        step()
        return (torch.cuda.max_memory_allocated() - before) // 2**20
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before = read_status("VmRSS")
    step()
    step()
    return (read_status("VmHWM") - before) // 1024


def read_status(field: str) -> int:
    """Read a size of this process in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field + ":")))


def make_table(rows: list[dict[str, Any]]) -> str:
    """Lay out the figures."""
    lines = ["| network | mode | by | seconds | ours is faster by | peak MiB |", "|---" * 6 + "|"]
    for row in rows:
        ratio = "" if row["by"] == "ours" else f"{row['ours_faster']:.2f}x"
        cells = [row["network"], row["mode"], row["by"], f"{row['seconds']:.3f}", ratio]
        lines.append("| " + " | ".join([*cells, str(row["peak_mib"])]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
