"""Pair images and masks by path patterns such as `{split}/images/{id}.*`.

In a pattern, `{id}` is the name of a case, `{split}` the folder of an official split (train,
training; val, valid, validation; test, testing), `{patient}` a patient, `{folder}` any other
folder, `*` any text within a name, and `.*` at the end any supported suffix. A mask belongs to the
image with the same values for all placeholders that both patterns have. Several masks of one image
are merged.
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
_PLACEHOLDERS = {
    "id": r"[^/]+",
    "patient": r"[^/]+",
    "folder": r"[^/]+",
    "split": "(?i:" + "|".join(sorted(SPLIT_WORDS, key=len, reverse=True)) + ")",
}
_ANY_SUFFIX = "(?i:" + "|".join(re.escape(suffix) for suffix in SUPPORTED_SUFFIXES) + ")"

# Values of the placeholders in a path, sorted by name.
Words = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPatterns:
    """Path patterns of images and masks below a folder, with `/` as separator.

    Attributes:
        images: Pattern of the images. Contains `{id}`.
        masks: Pattern of the masks. Contains `{id}`.
    """

    images: str
    masks: str


def read_patterns(root: Path, patterns: PathPatterns) -> list[Case]:
    """Read the pairs below a folder.

    Images without a mask and masks without an image become cases that an audit reports. If several
    images have the same id, their ids are prefixed with split, patient and folder.

    Args:
        root: The folder.
        patterns: Patterns below the folder.

    Returns:
        The cases, sorted by id. Empty if nothing matches.

    Raises:
        UsageError: If the folder is missing, or a pattern is invalid.
    """
    return pair_files(root, list_below(root), patterns)


def list_below(root: Path) -> list[str]:
    """List all supported files below a folder as relative paths, without hidden files.

    Raises:
        UsageError: If the folder is missing.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder of images and masks")
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
    """Pair files by patterns. See `read_patterns`.

    Args:
        root: The folder.
        files: As returned by `list_below`.
        patterns: Patterns below the folder.

    Raises:
        UsageError: If a pattern is invalid.
    """
    image_pattern, mask_pattern = compile_pattern(patterns.images), compile_pattern(patterns.masks)
    shared = set(image_pattern.groupindex) & set(mask_pattern.groupindex)
    images: dict[Words, list[tuple[str, dict[str, str]]]] = {}
    masks: dict[Words, list[str]] = {}
    for file in files:
        mask = mask_pattern.fullmatch(file)
        # Masks first, because an image pattern such as `{id}.*` may match masks in the same folder.
        image = None if mask else image_pattern.fullmatch(file)
        if mask:
            masks.setdefault(_words(mask, shared), []).append(file)
        elif image:
            words = image.groupdict()
            images.setdefault(_words(image, shared), []).append((file, words))
    counts = Counter(words["id"] for group in images.values() for _, words in group)
    cases = []
    for key in sorted({*images, *masks}):
        mask_files = [root / file for file in masks.get(key, [])]
        missing = [(_expected_image(patterns.images, key), dict(key))]
        for file, words in images.get(key, missing):
            is_ambiguous = counts[words["id"]] > 1
            cases.append(_make_case(root / file, mask_files, words, add_prefix=is_ambiguous))
    return sorted(cases, key=lambda case: (case.case_id, str(case.image)))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile a path pattern to a regular expression.

    Raises:
        UsageError: If it has an unknown placeholder, or no `{id}`.
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
        elif name not in _PLACEHOLDERS:
            known = ", ".join(f"{{{word}}}" for word in _PLACEHOLDERS)
            raise UsageError(f"pattern {pattern!r}: {{{name}}} is unknown; known: {known}")
        elif name in seen:
            parts.append(f"(?P={name})")
        else:
            seen.add(name)
            parts.append(f"(?P<{name}>{_PLACEHOLDERS[name]})")
    parts.append(re.escape(pattern[at:]))
    if "id" not in seen:
        raise UsageError(f"pattern {pattern!r}: {{id}} is missing, the name of a case")
    return re.compile("".join(parts))


def _words(match: re.Match[str], shared: set[str]) -> Words:
    found = match.groupdict()
    words = {name: found[name] for name in sorted(shared)}
    if "split" in words:  # images/Train and masks/train are the same split
        words["split"] = SPLIT_WORDS[words["split"].lower()]
    return tuple(words.items())


def _expected_image(pattern: str, key: Words) -> str:
    for name, word in key:
        pattern = pattern.replace(f"{{{name}}}", word)
    return pattern


def _make_case(
    image: Path, masks: Sequence[Path], words: Mapping[str, str], *, add_prefix: bool
) -> Case:
    """Make a case, with the id prefixed by split, patient and folder if it is not unique."""
    words = dict(words)
    if "split" in words:
        words["split"] = SPLIT_WORDS[words["split"].lower()]
    named = ("split", "patient", "folder", "id") if add_prefix else ("id",)
    return Case(
        case_id="_".join(words[name] for name in named if name in words),
        image=image,
        mask=masks[0] if masks else None,
        more_masks=tuple(masks[1:]),
        patient_id=words.get("patient"),
        split=SPLIT_WORDS[words["split"]] if "split" in words else None,
    )
