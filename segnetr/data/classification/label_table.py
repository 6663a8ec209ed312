"""A table of labels (CSV) beside a folder of images.

Known by their columns: ISIC 2017 part 3 (`melanoma`, `seborrheic_keratosis`; neither is a nevus;
the three official tables, where they lie together, are the official parts), HAM10000 (`dx`), ISIC
2018 task 3 (one column a class). Any other table: name its columns in the configuration.

Images of one lesion or patient are kept in one part of a split: the group stands in the table or
in another one beside it, as HAM10000's `lesion_id` stands in `HAM10000_metadata.csv`.
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
_MOST_CLASSES = 1000
_CERTAIN = 0.5  # some tables hold 0 and 1, some probabilities

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Which columns say what, and the classes they speak of."""

    id_column: str
    label_columns: tuple[str, ...]
    classes: tuple[str, ...]
    kind: LabelKind
    has_neither: bool


def read_label_table(
    root: Path, config: TableConfig, *, in_channels: int | None
) -> ClassificationSet:
    """Read a table and find the images it names; none is opened.

    Args:
        root: The folder that holds table and images, these at any depth.
        config: Which table and columns, where they are not known by themselves.
        in_channels: Channels the network is to see; None: 3.

    Returns:
        Cases in the order of their ids; rows without a image are issues.

    Raises:
        UsageError: If folder, table or columns are not there.
        ReadError: If the table cannot be read.
        DataError: If a row has no label or too many, or a image stands twice.
    """
    if not root.is_dir():
        raise UsageError(f"--data-dir {root}: no such folder")
    tables = _find_tables(root, config)
    rows = [(path, part, row) for path, part in tables for row in _read_rows(path)]
    layout = _find_layout(tables[0][0], [row for _, _, row in rows], config)
    groups = _read_groups(root, [path for path, _ in tables], config)
    images = _index_images(root / config.images if config.images else root)
    cases: list[ClassificationCase] = []
    issues: list[Issue] = []
    seen: set[str] = set()
    for path, part, row in rows:
        case_id = _name_case(row[layout.id_column])
        if case_id in seen:
            raise DataError(f"{path}: the image {case_id} stands twice; keep one row")
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
                split=part,
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
        license="that of the images",
        issues=tuple(issues),
        facts={"Groups": _describe_groups(cases)},
    )


def _find_tables(root: Path, config: TableConfig) -> list[tuple[Path, SplitName | None]]:
    if config.file is not None:
        path = root / config.file
        if not path.is_file():
            raise UsageError(f"{path}: no such table (data.table.file)")
        return [(path, None)]
    official = [(root / name, part) for name, part in _ISIC_2017_TABLES if (root / name).is_file()]
    if len(official) > 1:
        return list(official)
    found = sorted(path for path in root.glob("*.csv") if not path.name.startswith("."))
    if len(found) == 1:
        return [(found[0], None)]
    there = ", ".join(path.name for path in found) or "no .csv file"
    raise UsageError(f"{root}: {there}; name the table with --set data.table.file=NAME.csv")


def _read_rows(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            rows: list[Row] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReadError(path, f"not readable as a table ({error})") from error
    if len(set(header)) != len(header):
        raise ReadError(path, "has two columns of one name")
    if not rows:
        raise ReadError(path, "has no row below its header")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ReadError(path, f"line {number} has not the {len(header)} fields of the header")
    return rows


def _find_layout(path: Path, rows: Sequence[Row], config: TableConfig) -> _Layout:
    columns = tuple(rows[0])
    id_column = _choose(path, columns, config.id_column, _ID_COLUMNS, setting="id_column")
    chosen = config.label_columns
    for name in chosen:
        if name not in columns:
            raise UsageError(f"{path}: no column {name!r}; it has {', '.join(columns)}")
    if not chosen and set(_ISIC_2017) <= set(columns):
        chosen = _ISIC_2017
    if not chosen:
        named = [name for name in _LABEL_COLUMNS if name in columns]
        chosen = tuple(named[:1]) or _numeric_columns(rows, columns)
    if not chosen:
        raise UsageError(
            f"{path}: which columns are the labels? it has {', '.join(columns)}; name them with "
            "--set data.table.label_columns=[NAME, ...]"
        )
    return _describe_layout(rows, id_column, chosen, config)


def _describe_layout(
    rows: Sequence[Row], id_column: str, chosen: tuple[str, ...], config: TableConfig
) -> _Layout:
    if len(chosen) == 1:
        classes = tuple(sorted({row[chosen[0]].strip() for row in rows}))
        return _Layout(
            id_column=id_column,
            label_columns=chosen,
            classes=classes,
            kind="single",
            has_neither=False,
        )
    has_neither = not config.multi_label and chosen == _ISIC_2017
    return _Layout(
        id_column=id_column,
        label_columns=chosen,
        classes=(_NEITHER, *chosen) if has_neither else chosen,
        kind="multi" if config.multi_label else "single",
        has_neither=has_neither,
    )


def _choose(
    path: Path, columns: Sequence[str], wanted: str | None, known: Sequence[str], *, setting: str
) -> str:
    if wanted is not None and wanted not in columns:
        raise UsageError(f"{path}: no column {wanted!r}; it has {', '.join(columns)}")
    name = wanted or next((name for name in known if name in columns), None)
    if name is None:
        raise UsageError(
            f"{path}: which column names the images? it has {', '.join(columns)}; "
            f"--set data.table.{setting}=NAME"
        )
    return name


def _numeric_columns(rows: Sequence[Row], columns: Sequence[str]) -> tuple[str, ...]:
    """Give the columns that hold nothing but 0 and 1, where there are several."""
    allowed = {"0", "1", "0.0", "1.0"}
    numeric = tuple(name for name in columns if all(row[name] in allowed for row in rows))
    return numeric if len(numeric) > 1 else ()


def _read_labels(path: Path, row: Row, layout: _Layout) -> tuple[int, ...]:
    image = row[layout.id_column]
    if len(layout.label_columns) == 1:
        word = row[layout.label_columns[0]].strip()
        if not word:
            raise DataError(f"{path}: {image} has no label")
        if len(layout.classes) > _MOST_CLASSES:
            raise DataError(
                f"{path}: column {layout.label_columns[0]!r} holds {len(layout.classes)} different "
                "words; is it the label?"
            )
        return (layout.classes.index(word),)
    held = tuple(
        index for index, name in enumerate(layout.label_columns) if _is_true(path, row, name)
    )
    if layout.kind == "multi":
        return held
    if layout.has_neither:
        held = tuple(index + 1 for index in held) or (0,)
    if len(held) != 1:
        raise DataError(
            f"{path}: {image} has {len(held)} labels where one is expected; several are read "
            "with --set data.table.multi_label=true"
        )
    return held


def _is_true(path: Path, row: Row, column: str) -> bool:
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise DataError(f"{path}: {column} is {row[column]!r}, where 0 to 1 is expected")
    return value > _CERTAIN


def _read_groups(root: Path, tables: Sequence[Path], config: TableConfig) -> dict[str, str]:
    """Read the group of each image from the table itself or from one beside it."""
    wanted = (config.group_column,) if config.group_column else _GROUP_COLUMNS
    id_columns = (config.id_column, *_ID_COLUMNS) if config.id_column else _ID_COLUMNS
    groups: dict[str, str] = {}
    for path in sorted({*root.glob("*.csv"), *tables}):
        for name, group in _pair_groups(path, id_columns, wanted):
            if groups.setdefault(name, group) != group:
                raise DataError(f"{path}: {name} is of group {group}, elsewhere of {groups[name]}")
    if config.group_column and not groups:
        raise UsageError(f"{root}: no table with a column {config.group_column!r} (group_column)")
    return groups


def _pair_groups(
    path: Path, id_columns: Sequence[str], wanted: Sequence[str]
) -> Iterator[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            name = next((name for name in id_columns if name in columns), None)
            group = next((column for column in wanted if column in columns), None)
            if name is None or group is None:
                return
            for row in reader:
                if row[name] and row[group]:
                    yield _name_case(row[name]), row[group]
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise ReadError(path, f"not readable as a table ({error})") from error


def _name_case(cell: str) -> str:
    """Give the image's name without folders and without the ending of a image file."""
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
        message = f"{root}: no image {case_id} below it, which the table names"
        return Issue(case_id=case_id, path=root, kind="image-missing", message=message)
    message = f"{found[0]}: there is also {found[1]}; which one is {case_id}?"
    return Issue(case_id=case_id, path=found[0], kind="image-twice", message=message)


def _describe_groups(cases: Sequence[ClassificationCase]) -> str:
    groups = {case.patient_id for case in cases if case.patient_id is not None}
    return f"{len(groups)} groups kept together" if groups else "none: each image stands alone"
