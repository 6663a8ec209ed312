"""The content of the cases of a run: hashes of their files, to detect changed or reused data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from segnetr.errors import DataError
from segnetr.storage.manifest import write_json

_FORMAT = "segnetr-content-1"


@dataclass(frozen=True, slots=True)
class CaseContent:
    """Hashes of the cases of a run.

    Attributes:
        hashes: By case id: sha256 of the image file, then of each mask file.
    """

    hashes: Mapping[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Hash of all ids and hashes."""
        plain = {case_id: list(hashes) for case_id, hashes in sorted(self.hashes.items())}
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def find_changes(self, now: "CaseContent") -> dict[str, tuple[tuple[str, ...], ...]]:
        """Return the cases of both whose files differ: the hashes before and now, by case id."""
        return {
            case_id: (before, now.hashes[case_id])
            for case_id, before in sorted(self.hashes.items())
            if case_id in now.hashes and now.hashes[case_id] != before
        }


def write_content(content: CaseContent, path: Path) -> None:
    """Write the hashes as JSON, atomically.

    Raises:
        WriteError: If the file cannot be written.
    """
    cases = {case_id: list(hashes) for case_id, hashes in sorted(content.hashes.items())}
    write_json(path, {"format": _FORMAT, "sha256": content.sha256, "cases": cases})


def read_content(path: Path) -> CaseContent | None:
    """Read the hashes; None if there is no file, as in runs of version 0.1.

    Raises:
        DataError: If the file is damaged or was changed.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        cases = {
            case_id: tuple(map(_require_text, hashes))
            for case_id, hashes in record["cases"].items()
        }
        is_known, sha256 = record["format"] == _FORMAT, record["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not readable as hashes of cases ({error})") from error
    content = CaseContent(cases)
    if not is_known or content.sha256 != sha256:
        raise DataError(f"{path}: it was changed after it was written; restore the file")
    return content


def _require_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value
