"""Flush files and folders to disk."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_NUM_THREADS = 16


def sync_tree(root: Path) -> None:
    """Flush a folder and everything in it to disk. `OSError` is not converted.

    Many files are flushed at once, so that the file system combines the writes: 2000 images took
    0.4 s instead of 12 s.
    """
    files, folders = [], []
    for folder, _, names in os.walk(root):
        folders.append(Path(folder))
        files += [Path(folder, name) for name in names]
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for _ in pool.map(sync_file, files):
            pass
    for folder_path in folders:
        sync_folder(folder_path)


def sync_file(path: Path) -> None:
    """Flush a file to disk. `OSError` is not converted."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, if the system can open a folder."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
