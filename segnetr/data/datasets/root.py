"""Where below the folder a person named a data set's own folders begin."""

from collections.abc import Callable
from pathlib import Path

from segnetr.errors import UsageError


def find_dataset_root(
    root: Path, *, holds: Callable[[Path], bool], title: str, expected: str
) -> Path:
    """Find the folder that holds a data set: the root, or one folder in it.

    Args:
        root: The folder a person named.
        holds: Tells whether a folder holds the data set.
        title: Name of the data set for people.
        expected: What should be there and where to get it, for people.

    Raises:
        UsageError: If the root is missing or a file, or holds the data set nowhere or twice.
    """
    if not root.exists():
        raise UsageError(f"{root}: there is no such folder; expected there: {expected}")
    if not root.is_dir():
        raise UsageError(f"{root}: is a file; name the folder that holds {expected}")
    if holds(root):
        return root
    below = sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")
    homes = [path for path in below if holds(path)]
    if len(homes) > 1:
        names = ", ".join(path.name for path in homes)
        raise UsageError(
            f"{root}: {title} lies in {len(homes)} folders here ({names}); name one of them"
        )
    if not homes:
        raise UsageError(f"{root}: no {title} there nor one folder below; expected {expected}")
    return homes[0]


def list_files(folder: Path) -> list[Path]:
    """List what lies directly in a folder, by name, without hidden files and macOS' `._` files."""
    return [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
