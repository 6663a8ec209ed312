"""How images and masks lie in a folder nobody described: candidates, and the one that pairs most.

A folder or a stem that speaks of masks (`masks`, `labelsTr`, `x_seg.png`) holds them; `train`,
`val` and `test` are official parts; a folder that is called as its image holds one case; five or
more sibling folders are taken for patients.
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
_PATIENTS_FROM = 5
_MOST_CANDIDATES = 400

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundLayout:
    """What was found by the names of the files alone.

    Attributes:
        patterns: Where images and masks lie.
        cases: The cases by these patterns, those without a partner included.
    """

    patterns: PathPatterns
    cases: tuple[Case, ...]

    @property
    def pairs(self) -> tuple[Case, ...]:
        """The cases that have an image and a mask."""
        return tuple(case for case in self.cases if case.mask is not None and case.image.exists())


def find_table(root: Path) -> Path | None:
    """Find the one table of pairs that lies directly in a folder; None: none, or several."""
    tables = [
        path
        for path in sorted(root.glob("*.csv"))
        if set(REQUIRED) <= {name.strip() for name in _first_line(path).split(",")}
    ]
    return tables[0] if len(tables) == 1 else None


def find_layout(root: Path, files: Sequence[str]) -> FoundLayout | None:
    """Find the patterns that pair most images with masks; None where nothing pairs.

    Args:
        root: The folder.
        files: As `list_below` gives them.
    """
    best: FoundLayout | None = None
    known = {root / file for file in files}
    most = (0, 0)
    for patterns in itertools.islice(_suggest(files), _MOST_CANDIDATES):
        cases = pair_files(root, files, patterns)
        paired = sum(bool(case.mask_files) and case.image in known for case in cases)
        # More pairs first, then less that is left over.
        if paired and (paired, -len(cases)) > most:
            most = (paired, -len(cases))
            best = FoundLayout(patterns=patterns, cases=tuple(cases))
    return best


def _suggest(files: Sequence[str]) -> Iterator[PathPatterns]:
    """Suggest patterns, the simplest first."""
    folders = sorted(_generalize(files), key=lambda parts: (len(parts), parts))
    of_masks = [parts for parts in folders if any(map(_speaks_of_masks, parts))]
    of_images = [parts for parts in folders if parts not in of_masks]
    for image, mask in itertools.product(of_images, of_masks):
        for ending in ("", *MASK_SUFFIXES):
            yield _make_patterns(image, mask, "{id}" + ending)
        if "{id}" in image and len(image) == len(mask):
            # One folder a case: its masks have names of their own.
            inside = tuple("{id}" if i == "{id}" else m for i, m in zip(image, mask, strict=True))
            yield _make_patterns(image, inside, "*")
    for folder, ending in itertools.product(of_images, MASK_SUFFIXES):
        yield _make_patterns(folder, folder, "{id}" + ending)
        yield _make_patterns(folder, folder, "{id}" + ending + "_*")


def _make_patterns(image: Parts, mask: Parts, mask_name: str) -> PathPatterns:
    return PathPatterns(
        images="/".join((*image, "{id}.*")), masks="/".join((*mask, f"{mask_name}.*"))
    )


def _speaks_of_masks(name: str) -> bool:
    return not name.startswith("{") and _MASK_WORDS.search(name) is not None


def _generalize(files: Sequence[str]) -> set[Parts]:
    """Give the folders that hold files, with placeholders for parts, patients and cases."""
    stems: dict[Parts, list[str]] = defaultdict(list)
    for file in files:
        *parents, name = file.split("/")
        stems[tuple(map(_placeholder, parents))].append(_stem(name))
    for place in range(max(map(len, stems), default=0)):
        stems = _merge_siblings(stems, place)
    return set(stems)


def _placeholder(name: str) -> str:
    return "{split}" if name.lower() in SPLIT_WORDS else name


def _merge_siblings(stems: dict[Parts, list[str]], place: int) -> dict[Parts, list[str]]:
    """Put folders that differ at one place only under one name, if they are not told by words."""
    families: dict[tuple[Parts, Parts], list[Parts]] = defaultdict(list)
    merged: dict[Parts, list[str]] = defaultdict(list)
    for parts, names in stems.items():
        fixed = len(parts) <= place or parts[place][0] == "{" or _speaks_of_masks(parts[place])
        if fixed:
            merged[parts] += names
        else:
            families[parts[:place], parts[place + 1 :]].append(parts)
    for (before, after), members in families.items():
        if len(members) == 1:
            merged[members[0]] += stems[members[0]]
            continue
        own = all(stems[parts] == [parts[place]] for parts in members)
        name = "{id}" if own else "{patient}" if len(members) >= _PATIENTS_FROM else "{folder}"
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
