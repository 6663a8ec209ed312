"""Thumbnails of many files: found where they are known, made by several processes where not."""

from collections.abc import Callable, Sequence
from pathlib import Path

from segnetr.data.cache.segmentation import run_jobs
from segnetr.data.cache.store import CacheFolder, find_cache_folder
from segnetr.data.duplicates.thumbnail import Thumbnail, build_thumbnail, load_cached_thumbnail
from segnetr.errors import ReadError


def collect_thumbnails(
    paths: Sequence[Path],
    *,
    volume_channels: Sequence[int] | None = None,
    max_pixels: int,
    folder: Path | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Thumbnail | ReadError]:
    """Give the thumbnail of each file, or why it has none.

    Args:
        paths: Images and volumes.
        volume_channels: Of each file, as in `read_image`; None: one.
        max_pixels: Larger ones are refused before memory is taken for them.
        folder: Where thumbnails are kept; None: the user's cache folder.
        workers: Decoding processes; up to 1 decodes in this process.
        progress: Called with files done and all files.

    Raises:
        WriteError: If the folder cannot be written.
        SegNetrError: If a decoding process was killed.
    """
    cache = _open_cache(folder)
    channels_of = volume_channels or [1] * len(paths)
    known: dict[int, Thumbnail | ReadError] = {}
    jobs: dict[int, tuple[Path, int, int, CacheFolder]] = {}
    for place, (path, channels) in enumerate(zip(paths, channels_of, strict=True)):
        thumbnail = load_cached_thumbnail(path, cache=cache)
        if thumbnail is None:
            jobs[place] = (path, channels, max_pixels, cache)
        else:
            known[place] = thumbnail
    if jobs:
        cache.remove_old_parts()
    for place, made in run_jobs(build_thumbnail, jobs, workers=workers):
        known[place] = made
        if progress is not None:
            progress(len(known), len(paths))
    return [known[place] for place in range(len(paths))]


def load_cached_thumbnails(paths: Sequence[Path], *, folder: Path | None) -> list[Thumbnail] | None:
    """Give the thumbnails of files without opening one, or None where one is not known."""
    cache = _open_cache(folder)
    thumbnails = []
    for path in paths:
        thumbnail = load_cached_thumbnail(path, cache=cache)
        if thumbnail is None:
            return None
        thumbnails.append(thumbnail)
    return thumbnails


def _open_cache(folder: Path | None) -> CacheFolder:
    return CacheFolder((folder or find_cache_folder()).expanduser().absolute())
