"""Figures of a report, and their files next to the scores."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segnetr.errors import ReadError
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import write_bytes, write_json

_INDEX = "figures.json"
_MOST_BYTES = 6_500_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One image of a report.

    Attributes:
        name: File name without suffix, unique in the report.
        title: Heading.
        caption: Line below the heading.
        alt: Description in words.
        data: Content of the file: PNG, JPEG or WebP.
        slices: Single slices of a volume, from the lowest, as files of the same kinds.
        badge: Predicted quality of the case in a few words; empty if there is none.
        alarm: Why the case is out of distribution; empty if it is not.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: bytes
    slices: tuple[bytes, ...] = ()
    badge: str = ""
    alarm: str = ""


def write_figures(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write figures as files with an index, so that a report can be created again.

    Raises:
        WriteError: If a file cannot be written.
    """
    entries, paths = [], []
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            path = folder / f"{figure.name}{media_suffix(figure.data)}"
            slices = [
                folder / f"{figure.name}-slice{number:02d}{media_suffix(data)}"
                for number, data in enumerate(figure.slices, start=1)
            ]
            files = [path, *slices]
            for file, data in zip(files, (figure.data, *figure.slices), strict=True):
                write_bytes(file, data)
            paths += files
            entries.append(
                {
                    "file": path.name,
                    "title": figure.title,
                    "caption": figure.caption,
                    "alt": figure.alt,
                    "slices": [file.name for file in slices],
                    "badge": figure.badge,
                    "alarm": figure.alarm,
                }
            )
    write_json(folder / _INDEX, entries)
    return paths


def read_figures(folder: Path) -> list[Figure]:
    """Read the files of `write_figures`. Return no figures if the folder has no index.

    Raises:
        ReadError: If the index or a file it names cannot be read.
    """
    index = folder / _INDEX
    if not index.exists():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(index.read_text(encoding="utf-8"))
        return [
            Figure(
                name=Path(entry["file"]).stem,
                title=entry["title"],
                caption=entry["caption"],
                alt=entry["alt"],
                # Only the file name is used, so an index cannot refer to other folders.
                data=(folder / Path(entry["file"]).name).read_bytes(),
                slices=tuple(
                    (folder / Path(name).name).read_bytes() for name in entry.get("slices", ())
                ),
                badge=str(entry.get("badge", "")),
                alarm=str(entry.get("alarm", "")),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(
            index, f"not an index of figures ({error}); run segnetr evaluate"
        ) from error


def choose_within(
    figures: Sequence[Figure], *, most_bytes: int = _MOST_BYTES
) -> tuple[list[Figure], list[str]]:
    """Select figures that fit into a page of 10 MB.

    The last figures, which are the worst cases, have priority. The slices of a figure are omitted
    before the figure itself.

    Args:
        figures: In the order to show them.
        most_bytes: Limit for all files; inside the page they grow by a third.

    Returns:
        The selected figures in the same order, and a note if something was omitted.
    """
    room = most_bytes
    shown: list[Figure] = []
    plain = dropped = 0
    for figure in reversed(figures):
        rest = room - len(figure.data)
        if rest < 0:
            dropped += 1
            continue
        slices = figure.slices if sum(map(len, figure.slices)) <= rest else ()
        plain += len(slices) < len(figure.slices)
        shown.append(replace(figure, slices=slices))
        room = rest - sum(map(len, slices))
    notes = []
    if plain or dropped:
        notes.append(
            f"To keep this page below 10 MB, {dropped} images and the single slices of {plain} "
            "others were omitted; they are in the folder `figures` next to the scores."
        )
    return shown[::-1], notes


def media_suffix(data: bytes) -> str:
    """Return the suffix of an image file, derived from its first bytes.

    Raises:
        ValueError: If it is not a PNG, JPEG or WebP file.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    raise ValueError("a figure must be a PNG, JPEG or WebP file")
