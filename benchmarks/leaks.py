"""Run the duplicate audit on real images: detected copies, false positives, time for 10,000 images.

Each image of several real datasets is copied with one or more changes (recompressed, resized,
mirrored, rotated, cropped by up to 5 % per side), and the audit must match each copy with its
original. Pairs among the originals are false positives, unless the dataset's table says that they
show one lesion.

    python benchmarks/leaks.py --data DIR       (DIR holds ham10000, isic2018_layout, ...)

Writes benchmarks/results/leaks.json and prints the table.
"""

import argparse
import csv
import io
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from segnetr.data.duplicates.search import find_duplicates
from segnetr.data.duplicates.thumbnail import Thumbnail, collect_thumbnails, make_thumbnail
from segnetr.data.readers.image_file import DEFAULT_MAX_PIXELS, ImageFile
from segnetr.data.readers.read_files import read_image

RESULTS = Path(__file__).parent / "results" / "leaks.json"
# Only the chest X-rays of imagefolder: its dermoscopy images are reserved for testing.
SETS = {
    "ham10000": "ham10000/HAM10000_images_part_1/*.jpg",
    "isic2018_layout": "isic2018_layout/ISIC2018_Task1-2_Training_Input/*.jpg",
    "dsb2018": "dsb2018/stage1_train/*/images/*.png",
    "ultrasound": "ultrasound_tnscui_layout/train/image/*.PNG",
    "pneumonia28": "imagefolder/pneumonia28/*/*/*.png",
}
LEAST_SIDE = 32  # no copy is made smaller than this by resizing
ImageArray = Image.Image
Transform = Callable[[ImageArray, random.Random], ImageArray]


def compress(pixels: ImageArray, quality: int) -> ImageArray:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def resize(pixels: ImageArray, factor: float) -> ImageArray:
    size = (round(pixels.width * factor), round(pixels.height * factor))
    if factor < 1 and min(size) < LEAST_SIDE:
        return pixels
    return pixels.resize(size, Image.Resampling.BICUBIC)


def cut(pixels: ImageArray, shares: tuple[float, ...]) -> ImageArray:
    left, top, right, bottom = shares
    width, height = pixels.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return pixels.crop(tuple(round(edge) for edge in box))


def cut_one_side(pixels: ImageArray, rng: random.Random) -> ImageArray:
    shares = [0.0, 0.0, 0.0, 0.05]
    rng.shuffle(shares)
    return cut(pixels, tuple(shares))


def cut_at_random(pixels: ImageArray, rng: random.Random) -> ImageArray:
    return cut(pixels, tuple(rng.uniform(0, 0.05) for _ in range(4)))


def do_all(pixels: ImageArray, rng: random.Random) -> ImageArray:
    turned = pixels.transpose(rng.choice(list(Image.Transpose)))
    return compress(resize(cut_at_random(turned, rng), 0.6), 75)


FLIP = Image.Transpose
CHANGES: dict[str, Transform] = {
    "jpeg, quality 75": lambda p, _: compress(p, 75),
    "jpeg, quality 40": lambda p, _: compress(p, 40),
    "half the size": lambda p, _: resize(p, 0.5),
    "1.5 times the size": lambda p, _: resize(p, 1.5),
    "mirrored": lambda p, _: p.transpose(FLIP.FLIP_LEFT_RIGHT),
    "quarter turn": lambda p, _: p.transpose(FLIP.ROTATE_90),
    "diagonal mirror": lambda p, _: p.transpose(FLIP.TRANSVERSE),
    "5 % cut from each side": lambda p, _: cut(p, (0.05,) * 4),
    "5 % cut from one side": cut_one_side,
    "0 to 5 % cropped from each side": cut_at_random,
    "rotated, cropped, resized, jpeg": do_all,
}


def main() -> None:
    """Measure and write."""
    default = Path(os.environ.get("SEGNETR_DATA") or Path(__file__).parents[2] / "shared" / "data")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--many", type=int, default=10_000, help="images of the timed audit")
    arguments = parser.parse_args()
    sets = {
        name: [open_image(path) for path in sorted(arguments.data.glob(pattern))]
        for name, pattern in SETS.items()
    }
    lesions = read_lesions(arguments.data)
    for group in sets.values():
        for pixels in group:
            pixels.info["shows"] = lesions.get(pixels.info["name"], pixels.info["name"])
    content = {
        "command": "python benchmarks/leaks.py",
        "found": measure_found(sets),
        "false_alarms": measure_false_alarms(sets, lesions),
        "many": measure_many([p for name in list(SETS)[:4] for p in sets[name]], arguments.many),
    }
    write_results(content)
    print(json.dumps(content, indent=1))


def open_image(path: Path) -> ImageArray:
    array = read_image(path).array
    pixels = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    pixels.info["name"] = path.stem
    return pixels


def read_lesions(data: Path) -> dict[str, str]:
    """Return the lesion of each image: HAM10000 has several photographs of some lesions."""
    with (data / "ham10000" / "HAM10000_metadata.csv").open(newline="") as file:
        return {row["image_id"]: row["lesion_id"] for row in csv.DictReader(file)}


def see(pixels: ImageArray, name: str) -> Thumbnail:
    array = np.asarray(pixels)
    image = ImageFile(path=Path(name), array=np.atleast_3d(array), kind="image")
    size, gray = make_thumbnail(image)
    return Thumbnail(sha256=name, size=size, gray=gray)


def measure_found(sets: dict[str, list[ImageArray]]) -> dict[str, object]:
    """Return the share of copies matched with their originals, by change and dataset."""
    table: dict[str, dict[str, float]] = {}
    injected = found = 0
    for change, function in CHANGES.items():
        rng = random.Random(0)
        table[change] = {}
        for name, images in sets.items():
            originals = [see(pixels, f"o{i}") for i, pixels in enumerate(images)]
            changed = [function(pixels, rng) for pixels in images]
            copies = [see(pixels, f"c{i}") for i, pixels in enumerate(changed)]
            # Copies that would be too small are skipped.
            made = {i for i, pixels in enumerate(images) if changed[i] is not pixels}
            if not made:
                continue
            pairs = find_duplicates([*originals, *copies])
            own = {p.first for p in pairs if p.second == p.first + len(images)}
            hits = len(own & made)
            table[change][name] = round(hits / len(made), 4)
            injected += len(made)
            found += hits
        print(change, table[change], flush=True)
    return {"injected": injected, "found": found, "share": found / injected, "by_change": table}


def measure_false_alarms(
    sets: dict[str, list[ImageArray]], lesions: dict[str, str]
) -> dict[str, object]:
    """Compare all originals with each other. Pairs of one lesion are not false positives."""
    images = [pixels for group in sets.values() for pixels in group]
    names = [pixels.info["name"] for pixels in images]
    pairs = find_duplicates([see(pixels, f"o{i}") for i, pixels in enumerate(images)])
    false, known = [], []
    for pair in pairs:
        one, other = names[pair.first], names[pair.second]
        same = one in lesions and lesions[one] == lesions.get(other)
        (known if same else false).append([one, other, pair.kind, round(pair.likeness, 3)])
    flagged = {name for pair in false for name in pair[:2]}
    return {
        "images": len(images),
        "pairs_compared": len(images) * (len(images) - 1) // 2,
        "one_lesion": known,
        "false_pairs": false,
        "share_of_images": len(flagged) / len(images),
    }


def measure_many(sources: list[ImageArray], count: int) -> dict[str, object]:
    """Time a whole audit, including file access, of small images, one in twenty a copy."""
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        paths, ground_truth, sources_of = write_many(sources, count, Path(folder), rng)
        start, before = time.perf_counter(), processor_seconds()
        made = collect_thumbnails(
            paths, max_pixels=DEFAULT_MAX_PIXELS, folder=Path(folder) / "cache", workers=2
        )
        middle = time.perf_counter()
        pairs = find_duplicates([item for item in made if isinstance(item, Thumbnail)], workers=2)
        end, after = time.perf_counter(), processor_seconds()
    found = {(pair.first, pair.second) for pair in pairs}
    apart = {(one, other) for one, other in found if not sources_of[one] & sources_of[other]}
    return {
        "images": count,
        "copies": len(ground_truth),
        "found": len(ground_truth & found),
        # Crops of one photograph may be nearly equal, and an image may be copied twice.
        "other_pairs_of_one_photograph": len(found - ground_truth - apart),
        "false_pairs": len(apart),
        "seconds_thumbnails": round(middle - start, 1),
        "seconds_comparing": round(end - middle, 1),
        "processor_seconds": round(after - before, 1),
        "workers": 2,
        "load_of_the_machine": [round(value, 1) for value in os.getloadavg()],
    }


def write_many(
    sources: list[ImageArray], count: int, folder: Path, rng: random.Random
) -> tuple[list[Path], set[tuple[int, int]], list[set[str]]]:
    """Write blended crops of the source images, and copies of some of them.

    Returns:
        The files, the rows of originals and their copies, and the source of each file.
    """
    copies = count // 20
    small = [pixels.convert("RGB").resize((400, 300)) for pixels in sources]
    synthetic = [rng.sample(range(len(small)), 2) for _ in range(count - copies)]
    images = [blend([small[row] for row in rows], rng) for rows in synthetic]
    shown = [{sources[row].info["shows"] for row in rows} for rows in synthetic]
    ground_truth = set()
    for row in range(copies):
        chosen = rng.randrange(count - copies)
        change = rng.choice(list(CHANGES.values()))
        images.append(change(images[chosen], rng))
        ground_truth.add((chosen, count - copies + row))
        shown.append(shown[chosen])
    paths = []
    for row, pixels in enumerate(images):
        paths.append(folder / f"{row:05d}.jpg")
        pixels.save(paths[-1], quality=90)
    return paths, ground_truth, shown


def blend(pair: list[ImageArray], rng: random.Random) -> ImageArray:
    windows = []
    for pixels in pair:
        width, height = (round(side * rng.uniform(0.4, 0.7)) for side in pixels.size)
        left, top = rng.randrange(400 - width), rng.randrange(300 - height)
        window = pixels.crop((left, top, left + width, top + height)).resize((160, 120))
        windows.append(window)
    return Image.blend(*windows, alpha=rng.uniform(0.1, 0.35))


def processor_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def write_results(content: dict[str, object]) -> None:
    from segnetr.outputs.models.provenance import collect_provenance

    made_by = {key: value for key, value in collect_provenance().items() if key != "command"}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({**content, "made_by": made_by}, indent=1) + "\n")


if __name__ == "__main__":
    main()
