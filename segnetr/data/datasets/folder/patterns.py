"""Pairs of images and masks by patterns of their paths, as `{split}/images/{id}.*`.

In a pattern, `{id}` stands for the name of a case, `{split}` for the folder of an official part
(train, training; val, valid, validation; test, testing), `{patient}` for a patient, `{folder}` for
a folder without a meaning, `*` for anything within one name, and `.*` at the end for any suffix
that is read. A mask belongs to the image with which it shares everything that both patterns name;
of several masks the union counts.
"""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.data.case import Case, SplitName
from segnetr.data.readers.image_file import SUPPORTED_SUFFIXES
from segnetr.errors import UsageError

SPLIT_WORDS: Mapping[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}

_TOKEN = re.compile(r"\{(\w+)\}|(\.\*$)|(\*)")
_PIECES = {
    "id": r"[^/]+",
    "patient": r"[^/]+",
    "folder": r"[^/]+",
    "split": "(?i:" + "|".join(sorted(SPLIT_WORDS, key=len, reverse=True)) + ")",
}
_ANY_SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in SUPPORTED_SUFFIXES) + ")"

# What a pattern found in a path: the words by name, in the order of the names.
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPatterns:
    """Where images and masks lie below a folder, with `/` between the names.

    Attributes:
        images: Pattern of the images; names `{id}`.
        masks: Pattern of the masks; names `{id}`.
    """

    images: str
    masks: str


def read_patterns(root: Path, patterns: PathPatterns) -> list[Case]:
    """Read the pairs below a folder.

    An image without a mask and a mask without an image become cases for the audit to name. Where
    one id stands for several images, part, patient and folder become part of their ids.

    Args:
        root: The folder.
        patterns: Where to look below it.

    Returns:
        The cases, sorted by id; none if nothing matches.

    Raises:
        UsageError: If the folder is missing, or a pattern is none.
    """
    return pair_files(root, list_below(root), patterns)


def list_below(root: Path) -> list[str]:
    """List all files of kinds that are read below a folder, relative to it, hidden ones left out.

    Raises:
        UsageError: If the folder is missing.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder of images and masks")
    found = []
    for parent, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            Path(parent, name).relative_to(root).as_posix()
            for name in names
            if not name.startswith(".") and name.lower().endswith(SUPPORTED_SUFFIXES)
        ]
    return sorted(found)


def pair_files(root: Path, files: Sequence[str], patterns: PathPatterns) -> list[Case]:
    """Pair files by patterns; see `read_patterns`.

    Args:
        root: The folder the files lie below.
        files: As `list_below` gives them.
        patterns: Where to look.

    Raises:
        UsageError: If a pattern is none.
    """
    image_pattern, mask_pattern = compile_pattern(patterns.images), compile_pattern(patterns.masks)
    shared = set(image_pattern.groupindex) & set(mask_pattern.groupindex)
    images: dict[Words, list[tuple[str, dict[str, str]]]] = {}
    masks: dict[Words, list[str]] = {}
    for file in files:
        mask = mask_pattern.fullmatch(file)
        # A pattern of images as `{id}.*` takes the masks beside them as well.
        image = None if mask else image_pattern.fullmatch(file)
        if mask:
            masks.setdefault(_words(mask, shared), []).append(file)
        elif image:
            words = image.groupdict()
            images.setdefault(_words(image, shared), []).append((file, words))
    counts = Counter(words["id"] for of_key in images.values() for _, words in of_key)
    cases = []
    for key in sorted({*images, *masks}):
        of_case = [root / file for file in masks.get(key, [])]
        lost = [(_lost_image(patterns.images, key), dict(key))]
        for file, words in images.get(key, lost):
            told_apart = counts[words["id"]] > 1
            cases.append(_make_case(root / file, of_case, words, told_apart=told_apart))
    return sorted(cases, key=lambda case: (case.case_id, str(case.image)))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Turn a pattern of paths into a regular expression.

    Raises:
        UsageError: If it names something unknown, or no `{id}`.
    """
    parts, seen, at = [], set(), 0
    for token in _TOKEN.finditer(pattern):
        parts.append(re.escape(pattern[at : token.start()]))
        at = token.end()
        name, suffix, _ = token.groups()
        if suffix:
            parts.append(_ANY_SUFFIX)
        elif name is None:
            parts.append("[^/]*")
        elif name not in _PIECES:
            known = ", ".join(f"{{{word}}}" for word in _PIECES)
            raise UsageError(f"pattern {pattern!r}: {{{name}}} is unknown; known: {known}")
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            seen.add(name)
            parts.append(f"(?P<{name}>{_PIECES[name]})")
    parts.append(re.escape(pattern[at:]))
    if "id" not in seen:
        raise UsageError(f"pattern {pattern!r}: {{id}} is missing, the name of a case")
    return re.compile("".join(parts))


def _words(match: re.Match[str], shared: set[str]) -> Words:
    found = match.groupdict()
    words = {name: found[name] for name in sorted(shared)}
    if "split" in words:  # images/Train and masks/train are one part
        words["split"] = SPLIT_WORDS[words["split"].lower()]
    return tuple(words.items())


def _lost_image(pattern: str, key: Words) -> str:
    for name, word in key:
        pattern = pattern.replace(f"{{{name}}}", word)
    return pattern


def _make_case(
    image: Path, masks: Sequence[Path], words: Mapping[str, str], *, told_apart: bool
) -> Case:
    """Make a case; one to be told apart from others of its id has its folders before the id."""
    words = dict(words)
    if "split" in words:
        words["split"] = SPLIT_WORDS[words["split"].lower()]
    named = ("split", "patient", "folder", "id") if told_apart else ("id",)
    return Case(
        case_id="_".join(words[name] for name in named if name in words),
        image=image,
        mask=masks[0] if masks else None,
        more_masks=tuple(masks[1:]),
        patient_id=words.get("patient"),
        split=SPLIT_WORDS[words["split"]] if "split" in words else None,
    )
