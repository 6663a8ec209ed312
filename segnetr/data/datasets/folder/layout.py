"""Detect the layout of an undescribed folder: try path patterns and choose the best.

The best patterns are those that pair the most images with masks. Folders and stems with names such
as `masks`, `labelsTr` and `x_seg.png` contain masks. `train`, `val` and `test` are official splits.
A folder with the same name as its image contains one case. Five or more other sibling folders are
assumed to be patients.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.datasets.folder.pair_table import REQUIRED
from segnetr.data.datasets.folder.patterns import SPLIT_WORDS, PathPatterns, pair_files
from segnetr.data.readers.image_file import find_suffix

MASK_SUFFIXES = (
    "_mask", "_masks", "_seg", "_segmentation", "_label", "_labels", "_gt", "-mask", "-seg",
)  # fmt: skip

_MASK_WORDS = re.compile(
    r"mask|label|truth|annot|segm|(?:^|[^a-z])(?:gt|seg|segs|y)(?:$|[^a-z])", re.IGNORECASE
)
_MIN_PATIENTS = 5
_MAX_CANDIDATES = 400

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLayout:
    """A layout that was detected from file names only.

    Attributes:
        patterns: Path patterns of images and masks.
        cases: The cases of these patterns, including those without a partner.
    """

    patterns: PathPatterns
    cases: tuple[Case, ...]

    @property
    def pairs(self) -> tuple[Case, ...]:
        """The cases that have an image and a mask."""
        return tuple(case for case in self.cases if case.mask is not None and case.image.exists())


def find_table(root: Path) -> Path | None:
    """Find the only table of pairs in a folder. Return None if there is none or several."""
    tables = [
        path
        for path in sorted(root.glob("*.csv"))
        if set(REQUIRED) <= {name.strip() for name in _first_line(path).split(",")}
    ]
    return tables[0] if len(tables) == 1 else None


def find_layout(root: Path, files: Sequence[str]) -> FoundLayout | None:
    """Find the patterns that pair the most images with masks, or None if nothing pairs.

    Args:
        root: The folder.
        files: As returned by `list_below`.
    """
    best: FoundLayout | None = None
    known = {root / file for file in files}
    most = (0, 0)
    for patterns in itertools.islice(_suggest(files), _MAX_CANDIDATES):
        cases = pair_files(root, files, patterns)
        paired = sum(bool(case.mask_files) and case.image in known for case in cases)
        # More pairs first, then fewer files without a partner.
        if paired and (paired, -len(cases)) > most:
            most = (paired, -len(cases))
            best = FoundLayout(patterns=patterns, cases=tuple(cases))
    return best


def _suggest(files: Sequence[str]) -> Iterator[PathPatterns]:
    """Yield candidate patterns, the simplest first."""
    folders = sorted(_generalize(files), key=lambda parts: (len(parts), parts))
    mask_folders = [parts for parts in folders if any(map(_names_masks, parts))]
    image_folders = [parts for parts in folders if parts not in mask_folders]
    for image, mask in itertools.product(image_folders, mask_folders):
        for ending in ("", *MASK_SUFFIXES):
            yield _make_patterns(image, mask, "{id}" + ending)
        if "{id}" in image and len(image) == len(mask):
            # With one folder per case, the masks may have any names.
            inside = tuple("{id}" if i == "{id}" else m for i, m in zip(image, mask, strict=True))
            yield _make_patterns(image, inside, "*")
    for folder, ending in itertools.product(image_folders, MASK_SUFFIXES):
        yield _make_patterns(folder, folder, "{id}" + ending)
        yield _make_patterns(folder, folder, "{id}" + ending + "_*")


def _make_patterns(image: Parts, mask: Parts, mask_name: str) -> PathPatterns:
    return PathPatterns(
        images="/".join((*image, "{id}.*")), masks="/".join((*mask, f"{mask_name}.*"))
    )


def _names_masks(name: str) -> bool:
    return not name.startswith("{") and _MASK_WORDS.search(name) is not None


def _generalize(files: Sequence[str]) -> set[Parts]:
    """Return the folders of files, with placeholders for splits, patients and cases."""
    stems: dict[Parts, list[str]] = defaultdict(list)
    for file in files:
        *parents, name = file.split("/")
        stems[tuple(map(_placeholder, parents))].append(_stem(name))
    for level in range(max(map(len, stems), default=0)):
        stems = _merge_siblings(stems, level)
    return set(stems)


def _placeholder(name: str) -> str:
    return "{split}" if name.lower() in SPLIT_WORDS else name


def _merge_siblings(stems: dict[Parts, list[str]], level: int) -> dict[Parts, list[str]]:
    """Merge folders that differ at one level only into a placeholder, unless their name matters."""
    families: dict[tuple[Parts, Parts], list[Parts]] = defaultdict(list)
    merged: dict[Parts, list[str]] = defaultdict(list)
    for parts, names in stems.items():
        fixed = len(parts) <= level or parts[level][0] == "{" or _names_masks(parts[level])
        if fixed:
            merged[parts] += names
        else:
            families[parts[:level], parts[level + 1 :]].append(parts)
    for (before, after), members in families.items():
        if len(members) == 1:
            merged[members[0]] += stems[members[0]]
            continue
        is_case = all(stems[parts] == [parts[level]] for parts in members)
        name = "{id}" if is_case else "{patient}" if len(members) >= _MIN_PATIENTS else "{folder}"
        if {name, "{id}"} & {*before, *after}:
            name = "*"
        for parts in members:
            merged[(*before, name, *after)] += stems[parts]
    return merged


def _stem(name: str) -> str:
    suffix = find_suffix(Path(name)) or ""
    return name[: -len(suffix) or None]


def _first_line(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.readline(10_000)
    except (OSError, UnicodeDecodeError):
        return ""
