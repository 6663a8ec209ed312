"""A CSV table of labels and a folder of images.

These tables are recognized by their columns: ISIC 2017 part 3 (`melanoma`, `seborrheic_keratosis`,
and nevus if both are 0; the three official tables in one folder give the official splits), HAM10000
(`dx`), and ISIC 2018 task 3 (one column per class). For other tables, set the columns in the
configuration.

Images of one lesion or patient stay in one split. The group is read from the table or from another
one in the same folder, such as `lesion_id` in `HAM10000_metadata.csv`.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from segnetr.config.schema.classification import TableConfig
from segnetr.data.case import SplitName
from segnetr.data.classification.case import ClassificationCase, ClassificationSet, LabelKind
from segnetr.data.readers.file_list import list_images
from segnetr.data.readers.read_files import is_supported
from segnetr.data.validation.audit import Issue
from segnetr.errors import DataError, ReadError, UsageError

_ID_COLUMNS = ("image_id", "image", "file", "filename", "id")
_GROUP_COLUMNS = ("lesion_id", "patient_id", "patient", "group")
_LABEL_COLUMNS = ("dx", "label", "class", "diagnosis")
_ISIC_2017 = ("melanoma", "seborrheic_keratosis")
_ISIC_2017_TABLES: tuple[tuple[str, SplitName], ...] = (
    ("ISIC-2017_Training_Part3_GroundTruth.csv", "train"),
    ("ISIC-2017_Validation_Part3_GroundTruth.csv", "validation"),
    ("ISIC-2017_Test_v2_Part3_GroundTruth.csv", "test"),
)
_NEITHER = "nevus"
_MAX_CLASSES = 1000
_THRESHOLD = 0.5  # some tables contain 0 and 1, others probabilities

_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """The columns of a table and the classes."""

    id_column: str
    label_columns: tuple[str, ...]
    classes: tuple[str, ...]
    kind: LabelKind
    has_neither: bool


def read_label_table(
    root: Path, config: TableConfig, *, in_channels: int | None
) -> ClassificationSet:
    """Read a table and find its images without opening them.

    Args:
        root: The folder that contains the table, and the images at any depth.
        config: Table and columns, if they are not recognized.
        in_channels: Input channels of the network. None: 3.

    Returns:
        Cases sorted by id. Rows without an image are issues.

    Raises:
        UsageError: If the folder, the table or a column does not exist.
        ReadError: If the table cannot be read.
        DataError: If a row has no label or too many, or an image is listed twice.
    """
    if not root.is_dir():
        raise UsageError(f"--data-dir {root}: no such folder")
    tables = _find_tables(root, config)
    rows = [(path, split, row) for path, split in tables for row in _read_rows(path)]
    layout = _find_layout(tables[0][0], [row for _, _, row in rows], config)
    groups = _read_groups(root, [path for path, _ in tables], config)
    images = _index_images(root / config.images if config.images else root)
    cases: list[ClassificationCase] = []
    issues: list[Issue] = []
    seen: set[str] = set()
    for path, split, row in rows:
        case_id = _name_case(row[layout.id_column])
        if case_id in seen:
            raise DataError(f"{path}: the image {case_id} is listed twice; keep one row")
        seen.add(case_id)
        labels = _read_labels(path, row, layout)
        found = images.get(case_id, [])
        if len(found) != 1:
            issues.append(_missing(case_id, found, root))
            continue
        cases.append(
            ClassificationCase(
                case_id=case_id,
                image=found[0],
                labels=labels,
                patient_id=groups.get(case_id),
                split=split,
            )
        )
    return ClassificationSet(
        name="table",
        title=f"Table {tables[0][0].name}",
        classes=layout.classes,
        kind=layout.kind,
        in_channels=in_channels or 3,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        source="a table of labels and a folder of images",
        license="the license of the images",
        issues=tuple(issues),
        facts={"Groups": _describe_groups(cases)},
    )


def _find_tables(root: Path, config: TableConfig) -> list[tuple[Path, SplitName | None]]:
    if config.file is not None:
        path = root / config.file
        if not path.is_file():
            raise UsageError(f"{path}: no such table (data.table.file)")
        return [(path, None)]
    official = [
        (root / name, split) for name, split in _ISIC_2017_TABLES if (root / name).is_file()
    ]
    if len(official) > 1:
        return list(official)
    found = sorted(path for path in root.glob("*.csv") if not path.name.startswith("."))
    if len(found) == 1:
        return [(found[0], None)]
    names = ", ".join(path.name for path in found) or "no .csv file"
    raise UsageError(
        f"{root}: contains {names}; choose the table with --set data.table.file=NAME.csv"
    )


def _read_rows(path: Path) -> list[_Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            rows: list[_Row] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(path, f"not readable as a table ({error})") from error
    if len(set(header)) != len(header):
        raise ReadError(path, "has duplicate column names")
    if not rows:
        raise ReadError(path, "has no row")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ReadError(
                path, f"line {number} does not have the {len(header)} fields of the header"
            )
    return rows


def _find_layout(path: Path, rows: Sequence[_Row], config: TableConfig) -> _Layout:
    columns = tuple(rows[0])
    id_column = _choose(path, columns, config.id_column, _ID_COLUMNS, setting="id_column")
    labels = config.label_columns
    for name in labels:
        if name not in columns:
            raise UsageError(f"{path}: no column {name!r}; it has {', '.join(columns)}")
    if not labels and set(_ISIC_2017) <= set(columns):
        labels = _ISIC_2017
    if not labels:
        named = [name for name in _LABEL_COLUMNS if name in columns]
        labels = tuple(named[:1]) or _numeric_columns(rows, columns)
    if not labels:
        raise UsageError(
            f"{path}: cannot tell the label columns ({', '.join(columns)}); set them with "
            "--set data.table.label_columns=[NAME, ...]"
        )
    return _describe_layout(rows, id_column, labels, config)


def _describe_layout(
    rows: Sequence[_Row], id_column: str, labels: tuple[str, ...], config: TableConfig
) -> _Layout:
    if len(labels) == 1:
        classes = tuple(sorted({row[labels[0]].strip() for row in rows}))
        return _Layout(
            id_column=id_column,
            label_columns=labels,
            classes=classes,
            kind="single",
            has_neither=False,
        )
    has_neither = not config.multi_label and labels == _ISIC_2017
    return _Layout(
        id_column=id_column,
        label_columns=labels,
        classes=(_NEITHER, *labels) if has_neither else labels,
        kind="multi" if config.multi_label else "single",
        has_neither=has_neither,
    )


def _choose(
    path: Path,
    columns: Sequence[str],
    configured: str | None,
    known: Sequence[str],
    *,
    setting: str,
) -> str:
    if configured is not None and configured not in columns:
        raise UsageError(f"{path}: no column {configured!r}; it has {', '.join(columns)}")
    name = configured or next((name for name in known if name in columns), None)
    if name is None:
        raise UsageError(
            f"{path}: cannot tell the column of image names ({', '.join(columns)}); use "
            f"--set data.table.{setting}=NAME"
        )
    return name


def _numeric_columns(rows: Sequence[_Row], columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that contain only 0 and 1, if there are at least two."""
    allowed = {"0", "1", "0.0", "1.0"}
    numeric = tuple(name for name in columns if all(row[name] in allowed for row in rows))
    return numeric if len(numeric) > 1 else ()


def _read_labels(path: Path, row: _Row, layout: _Layout) -> tuple[int, ...]:
    image = row[layout.id_column]
    if len(layout.label_columns) == 1:
        return (_read_class(path, row, layout),)
    labels = tuple(
        index for index, name in enumerate(layout.label_columns) if _is_true(path, row, name)
    )
    if layout.kind == "multi":
        return labels
    if layout.has_neither:
        labels = tuple(index + 1 for index in labels) or (0,)
    if len(labels) != 1:
        raise DataError(
            f"{path}: {image} has {len(labels)} labels; for multi-label tables use "
            "--set data.table.multi_label=true"
        )
    return labels


def _read_class(path: Path, row: _Row, layout: _Layout) -> int:
    """Return the class index of a row in a table with one label column."""
    column = layout.label_columns[0]
    name = row[column].strip()
    if not name:
        raise DataError(f"{path}: {row[layout.id_column]} has no label")
    if len(layout.classes) > _MAX_CLASSES:
        raise DataError(
            f"{path}: the label column {column!r} contains "
            f"{len(layout.classes)} different values; at most {_MAX_CLASSES} are allowed"
        )
    return layout.classes.index(name)


def _is_true(path: Path, row: _Row, column: str) -> bool:
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise DataError(f"{path}: {column} is {row[column]!r}; expected 0 to 1")
    return value > _THRESHOLD


def _read_groups(root: Path, tables: Sequence[Path], config: TableConfig) -> dict[str, str]:
    """Read the group of each image from the table or from another one in the same folder."""
    group_columns = (config.group_column,) if config.group_column else _GROUP_COLUMNS
    id_columns = (config.id_column, *_ID_COLUMNS) if config.id_column else _ID_COLUMNS
    groups: dict[str, str] = {}
    for path in sorted({*root.glob("*.csv"), *tables}):
        for name, group in _pair_groups(path, id_columns, group_columns):
            if groups.setdefault(name, group) != group:
                raise DataError(
                    f"{path}: {name} has the group {group}, but {groups[name]} elsewhere"
                )
    if config.group_column and not groups:
        raise UsageError(f"{root}: no table with a column {config.group_column!r} (group_column)")
    return groups


def _pair_groups(
    path: Path, id_columns: Sequence[str], group_columns: Sequence[str]
) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            name = _find_first(id_columns, columns)
            group = _find_first(group_columns, columns)
            if name is None or group is None:
                return
            for row in reader:
                if row[name] and row[group]:
                    yield _name_case(row[name]), row[group]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ReadError(path, f"not readable as a table ({error})") from error


def _find_first(candidates: Sequence[str], columns: Sequence[str]) -> str | None:
    """Return the first candidate that is a column; None if there is none."""
    return next((name for name in candidates if name in columns), None)


def _name_case(cell: str) -> str:
    """Return an image's name without folders and without the suffix of an image file."""
    path = Path(cell.strip())
    return path.stem if is_supported(path) else path.name


def _index_images(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder (data.table.images)")
    index: dict[str, list[Path]] = {}
    for path, _ in list_images([folder]):
        index.setdefault(path.stem, []).append(path)
    return index


def _missing(case_id: str, found: Sequence[Path], root: Path) -> Issue:
    if not found:
        message = f"{root}: contains no image {case_id}, which the table lists"
        return Issue(case_id=case_id, path=root, kind="image-missing", message=message)
    message = f"{found[0]}: {case_id} is ambiguous, there is also {found[1]}; remove one of them"
    return Issue(case_id=case_id, path=found[0], kind="image-twice", message=message)


def _describe_groups(cases: Sequence[ClassificationCase]) -> str:
    groups = {case.patient_id for case in cases if case.patient_id is not None}
    return f"{len(groups)} groups, each in one split" if groups else "none"
