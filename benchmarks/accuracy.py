"""Compare the accuracy of SegNetr and MONAI's BasicUNet with one trainer and one time budget.

Both networks are trained on the images of one dataset and scored on those of another, with three
seeds each. Before that, both are timed on this machine, interleaved, and the peer gets as many
steps as it completes in SegNetr's time.

    python benchmarks/accuracy.py --data DIR       (DIR holds isic2018_layout and isic2017)

Writes benchmarks/results/accuracy.json and prints the table.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

RECIPE = "experiment/isic_thirty"
RESULTS = Path(__file__).parent / "results" / "accuracy.json"
MODELS = ("segnetr", "basic_unet")


def main() -> None:
    """Time, train, score, and print the table."""
    arguments = parse_arguments()
    train_dir, test_dir = arguments.data / "isic2018_layout", arguments.data / "isic2017"
    steps = choose_steps(arguments)
    rows = []
    for seed in arguments.seeds:
        for name in MODELS:
            run = arguments.out / f"{name}-{seed}"
            rows.append(run_one(name, seed, steps[name], run, train_dir, test_dir))
            print(json.dumps(rows[-1]), flush=True)
    write_results(rows, steps)
    print(make_table(rows))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    default = Path(os.environ.get("SEGNETR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-accuracy"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--peer-steps", type=int, help="steps of the peer, instead of timing it")
    return parser.parse_args()


def flags_of(name: str) -> list[str]:
    """Return the flags of the peer that differ from the recipe."""
    return [] if name == "segnetr" else ["--model", name]


def load(name: str, extra: tuple[str, ...] = ()):
    """Return the resolved recipe of one of the two networks."""
    from segnetr.config.load import load_config

    recipes = [RECIPE] if name == "segnetr" else [RECIPE, f"model/{name}"]
    return load_config(recipes, assignments=extra)


def choose_steps(arguments: argparse.Namespace) -> dict[str, int]:
    """Return the steps of SegNetr (the recipe) and of the peer (as many as fit in that time)."""
    own = load("segnetr").train.steps
    if arguments.peer_steps:
        return {"segnetr": own, "basic_unet": arguments.peer_steps}
    seconds = time_in_turns()
    return {"segnetr": own, "basic_unet": round(own * seconds["segnetr"] / seconds["basic_unet"])}


def time_in_turns(rounds: int = 7, steps: int = 3) -> dict[str, float]:
    """Return the median seconds of a training step of both networks, interleaved."""
    import torch

    from segnetr.losses import build_loss
    from segnetr.models.build import build_model

    models, optimizers = {}, {}
    loss = build_loss("dice_ce", num_classes=2)
    config = load("segnetr").train
    for name in MODELS:
        model = build_model(
            load(name).model, in_channels=3, num_classes=2, image_size=config.image_size
        )
        models[name] = model.to(memory_format=torch.channels_last).train()
        optimizers[name] = torch.optim.AdamW(model.parameters())
    image = torch.randn(config.batch_size, 3, *config.image_size)
    image = image.contiguous(memory_format=torch.channels_last)
    mask = torch.randint(0, 2, (config.batch_size, 1, *config.image_size))
    passed: dict[str, list[float]] = {name: [] for name in MODELS}
    for _ in range(rounds):
        for name, model in models.items():
            start = time.perf_counter()
            for _ in range(steps):
                loss(model(image), mask).backward()
                optimizers[name].step()
                optimizers[name].zero_grad()
            passed[name].append((time.perf_counter() - start) / steps)
    return {name: statistics.median(times[1:]) for name, times in passed.items()}


def run_one(
    name: str, seed: int, steps: int, run: Path, train_dir: Path, test_dir: Path
) -> dict[str, object]:
    """Train one network with one seed and score it on the other dataset."""
    command = [sys.executable, "-m", "segnetr.cli", "train", "--config", RECIPE, *flags_of(name)]
    command += ["--data-dir", str(train_dir), "--out", str(run), "--seed", str(seed)]
    command += ["--steps", str(steps), "--quiet"]
    if not (run / "model").is_dir():
        subprocess.run(command, check=True)
    where = ["--dataset", "isic2017", "--data-dir", str(test_dir)]
    scored = subprocess.run(
        [sys.executable, "-m", "segnetr.cli", "evaluate", str(run), *where, "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    summaries = json.loads(scored.stdout)["summaries"]
    means = {row["metric"]: row["mean"] for row in summaries}
    state = json.loads((run / "checkpoints" / "last" / "state.json").read_text())["state"]
    return {
        "model": name,
        "seed": seed,
        "steps": steps,
        "minutes": round(state["seconds"] / 60, 1),
        "dice": means["dice"],
        "iou": means["iou"],
        "isic_jaccard": means["isic_jaccard"],
    }


def make_table(rows: list[dict[str, object]]) -> str:
    """Return the runs as a table, with the mean and standard deviation of each network."""
    lines = ["| network | seed | steps | minutes | Dice | IoU |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['model']} | {row['seed']} | {row['steps']} | {row['minutes']} "
        f"| {row['dice']:.3f} | {row['iou']:.3f} |"
        for row in rows
    ]
    for name in MODELS:
        scores = [row["dice"] for row in rows if row["model"] == name]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        lines.append(f"| **{name}** | all | | | {statistics.mean(scores):.3f} ± {spread:.3f} | |")
    return "\n".join(lines)


def write_results(rows: list[dict[str, object]], steps: dict[str, int]) -> None:
    """Write the figures with the versions and settings behind them."""
    from segnetr.outputs.models.provenance import collect_provenance

    content = {
        "command": "python benchmarks/accuracy.py",
        "recipe": RECIPE,
        "steps": steps,
        "runs": rows,
        "made_by": collect_provenance(),
        "written": time.strftime("%Y-%m-%d"),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
