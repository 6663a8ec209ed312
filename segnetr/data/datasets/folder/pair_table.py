"""Read pairs of images and masks from a CSV or JSON table.

The table may also state patients, splits and strata.
"""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.data.case import Case
from segnetr.data.datasets.folder.patterns import SPLIT_WORDS
from segnetr.data.readers.image_file import find_suffix
from segnetr.errors import DataError, UsageError, find_closest

REQUIRED = ("image", "mask")
OPTIONAL = ("id", "patient", "split", "stratum")

_MAX_BYTES = 200_000_000
_MASK_SEPARATOR = ";"


@dataclass(frozen=True, slots=True)
class _Row:
    number: int
    cells: Mapping[str, Any]


def read_pair_table(table: Path, *, root: Path) -> list[Case]:
    """Read a table of pairs.

    The required columns are `image` and `mask`, the optional ones `id`, `patient`, `split` and
    `stratum`. Other columns are stored in `Case.extra`. Several masks of one image are separated by
    `;` in one cell (a list in JSON). Without `id`, the id of a case is the stem of its image, or
    its whole path if stems are not unique. An audit reports missing files.

    Args:
        table: A `.csv` file with a header, or a `.json` file with a list of objects.
        root: Folder that the paths in the table are relative to.

    Returns:
        The cases, sorted by id.

    Raises:
        UsageError: If the table does not exist, or is neither .csv nor .json.
        DataError: If it cannot be read, lacks a column, or contains an invalid row.
    """
    if not table.is_file():
        raise UsageError(f"{table}: no such table of pairs")
    suffix = table.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise UsageError(f"{table}: a table of pairs must be a .csv or .json file")
    if table.stat().st_size > _MAX_BYTES:
        raise DataError(f"{table}: larger than {_MAX_BYTES} bytes; not a table of pairs")
    rows = _read_csv(table) if suffix == ".csv" else _read_json(table)
    if not rows:
        raise DataError(f"{table}: contains no row")
    names = _name_cases(rows)
    cases = [_make_case(table, root, row, name) for row, name in zip(rows, names, strict=True)]
    return sorted(cases, key=lambda case: (case.case_id, str(case.image)))


def _read_csv(table: Path) -> list[_Row]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True, strict=True)
            _check_columns(table, [name.strip() for name in reader.fieldnames or []])
            rows = [_Row(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: cannot be read as a table ({error})") from error
    for row in rows:
        if None in row.cells or None in row.cells.values():
            raise DataError(f"{table}: line {row.number} does not have one cell per column")
    return [_Row(row.number, {k.strip(): v.strip() for k, v in row.cells.items()}) for row in rows]


def _read_json(table: Path) -> list[_Row]:
    try:
        content = json.loads(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{table}: cannot be read as JSON ({error})") from error
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise DataError(f"{table}: expected a list of objects with image and mask")
    for item in content:
        _check_columns(table, list(item))
    return [_Row(number, item) for number, item in enumerate(content, start=1)]


def _check_columns(table: Path, columns: Sequence[str]) -> None:
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DataError(
            f"{table}: the column {missing[0]!r} is missing; it has {', '.join(columns) or 'none'}"
        )
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"{table}: duplicate column {twice[0]!r}")
    _check_spelling(table, columns)


def _check_spelling(table: Path, columns: Sequence[str]) -> None:
    """Raise DataError if an unknown column resembles a known one."""
    # With a misspelled patient column, patients could silently be in train and in test.
    for column in columns:
        near = find_closest(column, OPTIONAL, cutoff=0.75)
        if column not in (*REQUIRED, *OPTIONAL) and near is not None and near not in columns:
            raise DataError(f"{table}: unknown column {column!r}; did you mean {near!r}?")


def _name_cases(rows: Sequence[_Row]) -> list[str]:
    stems = [_stem(str(row.cells["image"])) for row in rows]
    counts = Counter(Path(stem).name for stem in stems)
    named = []
    for row, stem in zip(rows, stems, strict=True):
        short = Path(stem).name
        own = str(row.cells.get("id") or "")
        named.append(own or (short if counts[short] == 1 else stem.strip("/").replace("/", "_")))
    return named


def _stem(name: str) -> str:
    suffix = find_suffix(Path(name)) or ""
    return Path(name).as_posix()[: -len(suffix) or None]


def _make_case(table: Path, root: Path, row: _Row, name: str) -> Case:
    image, masks = row.cells["image"], row.cells["mask"]
    if isinstance(masks, str):
        masks = [mask.strip() for mask in masks.split(_MASK_SEPARATOR) if mask.strip()]
    if not isinstance(image, str) or not image or not isinstance(masks, list | None):
        raise DataError(f"{table}: row {row.number} needs texts in the columns image and mask")
    files = [root / str(mask) for mask in masks or []]
    split = _find_split_word(table, row)
    extra = _collect_extra(row)
    patient = row.cells.get("patient")
    return Case(
        case_id=name,
        image=root / image,
        mask=files[0] if files else None,
        more_masks=tuple(files[1:]),
        patient_id=None if patient in (None, "") else str(patient),
        split=SPLIT_WORDS[split] if split else None,
        extra=extra,
    )


def _find_split_word(table: Path, row: _Row) -> str:
    """Return the name of the split in lower case; empty if the row has none."""
    split = str(row.cells.get("split") or "").lower()
    if split and split not in SPLIT_WORDS:
        known = ", ".join(SPLIT_WORDS)
        raise DataError(f"{table}: row {row.number}: split {split!r} is not one of {known}")
    return split


def _collect_extra(row: _Row) -> dict[str, str]:
    """Return the cells of all further columns that are not empty."""
    known_columns = (*REQUIRED, "id", "patient", "split")
    return {key: str(cell) for key, cell in row.cells.items() if key not in known_columns and cell}
