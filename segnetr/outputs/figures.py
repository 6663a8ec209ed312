"""Pictures of a report, as files that read back."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.engine.manifest import as_write_error, write_bytes, write_json
from segnetr.errors import ReadError

_INDEX = "figures.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One picture of a report.

    Attributes:
        name: File name without suffix, unique in the report.
        title: What is shown.
        caption: What to see in it.
        alt: The picture in words.
        data: The file: PNG, JPEG or WebP.
    """

    name: str
    title: str
    caption: str
    alt: str
    data: bytes


def write_figures(folder: Path, figures: Sequence[Figure]) -> list[Path]:
    """Write figures as files with an index, so that a report can be made again.

    Raises:
        WriteError: If a file cannot be written.
    """
    entries, paths = [], []
    with as_write_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            path = folder / f"{figure.name}{media_suffix(figure.data)}"
            write_bytes(path, figure.data)
            paths.append(path)
            entries.append(
                {
                    "file": path.name,
                    "title": figure.title,
                    "caption": figure.caption,
                    "alt": figure.alt,
                }
            )
    write_json(folder / _INDEX, entries)
    return paths


def read_figures(folder: Path) -> list[Figure]:
    """Read back what `write_figures` wrote; nothing where the folder has no index.

    Raises:
        ReadError: If the index or a file it names cannot be read.
    """
    index = folder / _INDEX
    if not index.exists():
        return []
    try:
        entries: list[dict[str, str]] = json.loads(index.read_text(encoding="utf-8"))
        return [
            Figure(
                name=Path(entry["file"]).stem,
                title=entry["title"],
                caption=entry["caption"],
                alt=entry["alt"],
                # Only the name counts: an index does not reach out of its folder.
                data=(folder / Path(entry["file"]).name).read_bytes(),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReadError(index, f"no index of figures ({error}); run segnetr evaluate") from error


def media_suffix(data: bytes) -> str:
    """Tell the suffix of a picture file from its first bytes.

    Raises:
        ValueError: If it is no PNG, JPEG or WebP file.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return ".png"
    if data.startswith(b"\xff\xd8\xff"):
        return ".jpg"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return ".webp"
    raise ValueError("a figure is a PNG, JPEG or WebP file")
