"""Select the slices of a DICOM series, sort them by position, and check for gaps.

Source:
    DICOM PS3.3, C.7.6.2 (Image Plane Module): position, orientation and spacing of a slice.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segnetr.data.readers.dicom.headers import SliceHeader
from segnetr.data.readers.image_file import check_affine
from segnetr.errors import ReadError

_SHOWN_SERIES = 8
# Headers have few decimals, so smaller differences are ignored.
_SAME_DIRECTION = 1e-3
_SAME_STEP = 0.02
_SAME_POSITION_MM = 0.01


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SliceVolume:
    """The slices of a volume.

    Attributes:
        slices: Headers from the first slice along Z to the last.
        affine: (4, 4), from (column, row, slice) to right, anterior, superior in mm.
        dtype: Type of the rescaled values.
    """

    slices: tuple[SliceHeader, ...]
    affine: NDArray[np.float64]
    dtype: str


def choose_series(
    path: Path, headers: Sequence[SliceHeader], wanted: str | None
) -> list[SliceHeader]:
    """Choose the slices of one series.

    Args:
        path: The source, for messages.
        headers: The headers of all its files.
        wanted: A SeriesInstanceUID, or None if there is only one series.

    Raises:
        ReadError: If there is no image, no such series, or several series and `wanted` is None.
    """
    series = _group_by_series(headers)
    if not series:
        raise ReadError(path, "it holds no DICOM image")
    for header in headers:
        # Otherwise a file truncated before its rows would be skipped, and a slice would be missing.
        if header.uid in series and header not in series[header.uid]:
            raise ReadError(
                _slice_path(path, header.name), "cut off: it has no pixels, as its series has"
            )
    if wanted is not None:
        if wanted not in series:
            raise ReadError(path, f"it has no series {wanted}; it has {format_series(series)}")
        return series[wanted]
    if len(series) > 1:
        raise ReadError(
            path,
            f"it holds {len(series)} series, choose one by --series UID: {format_series(series)}",
        )
    return next(iter(series.values()))


def _group_by_series(headers: Sequence[SliceHeader]) -> dict[str, list[SliceHeader]]:
    """Return the headers with pixels by SeriesInstanceUID."""
    series: dict[str, list[SliceHeader]] = defaultdict(list)
    for header in headers:
        if header.rows > 0 and header.columns > 0:
            series[header.uid].append(header)
    return series


def format_series(series: dict[str, list[SliceHeader]]) -> str:
    """Return a one-line description of the series."""
    names = [
        f"{uid} ({', '.join(filter(None, (of[0].text, f'{len(of)} files')))})"
        for uid, of in sorted(series.items())
    ]
    more = f" and {len(names) - _SHOWN_SERIES} more" if len(names) > _SHOWN_SERIES else ""
    return "; ".join(names[:_SHOWN_SERIES]) + more


def arrange(path: Path, headers: Sequence[SliceHeader]) -> SliceVolume:
    """Sort the slices of a series along their normal.

    Args:
        path: The source, for messages.
        headers: Slices of one series in any order.

    Raises:
        ReadError: If slices differ in size, spacing, type or orientation, two slices have the same
            position, one is missing, or they are shifted sideways.
    """
    first = headers[0]
    for header in headers:
        _check_slice(_slice_path(path, header.name), header)
        _check_duplicates(_slice_path(path, header.name), header, first)
    assert first.orientation is not None
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    normal = np.cross(row, column)
    depths = {id(header): float(np.dot(normal, _position(header))) for header in headers}
    slices = tuple(sorted(headers, key=lambda header: (depths[id(header)], header.name)))
    step = _find_step(path, slices, normal)
    assert first.spacing is not None
    between_rows, between_columns = first.spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * between_columns, column * between_rows, step
    affine[:3, 3] = _position(slices[0])
    affine[:2] *= -1.0
    affine += 0.0  # no minus zero
    check_affine(path, affine)
    return SliceVolume(slices=slices, affine=affine, dtype=_find_dtype(slices))


def _slice_path(path: Path, name: str) -> Path:
    """Return the path of a slice for messages. A source may be a single slice."""
    return path if path.name == name else path / name


def _position(header: SliceHeader) -> NDArray[np.float64]:
    return np.array(header.position)


def _check_slice(path: Path, header: SliceHeader) -> None:
    if header.frames != 1:
        raise ReadError(path, f"it holds {header.frames} frames; files of one slice each are read")
    if header.samples != 1:
        raise ReadError(path, f"it has {header.samples} values for each pixel; gray ones are read")
    for name, value in (
        ("PixelSpacing", header.spacing),
        ("ImageOrientationPatient", header.orientation),
        ("ImagePositionPatient", header.position),
    ):
        if value is None:
            raise ReadError(path, f"its {name} is missing: it does not say where it lies")
        if not np.isfinite(value).all():
            raise ReadError(path, f"its {name} holds NaN or infinite numbers")
    assert header.orientation is not None
    row, column = np.array(header.orientation).reshape(2, 3)
    lengths = abs(np.linalg.norm(row) - 1), abs(np.linalg.norm(column) - 1), abs(row @ column)
    if max(lengths) > _SAME_DIRECTION:
        raise ReadError(path, "its ImageOrientationPatient is no pair of right-angled directions")
    if not (np.isfinite(header.slope) and np.isfinite(header.intercept) and header.slope):
        raise ReadError(
            path,
            f"its RescaleSlope is {header.slope:g}, and its intercept"
            f" {header.intercept:g}: no values come of that",
        )


def _check_duplicates(path: Path, header: SliceHeader, first: SliceHeader) -> None:
    if (header.rows, header.columns) != (first.rows, first.columns):
        raise ReadError(
            path,
            f"it is {header.columns} x {header.rows} where {first.name} of its series is"
            f" {first.columns} x {first.rows}",
        )
    assert header.orientation is not None
    assert first.orientation is not None
    turned = np.abs(np.array(header.orientation) - np.array(first.orientation)).max()
    if turned > _SAME_DIRECTION:
        raise ReadError(
            path, f"mixed orientations: it lies otherwise than {first.name} of its series"
        )
    if not np.allclose(header.spacing or (), first.spacing or (), rtol=_SAME_DIRECTION, atol=0):
        raise ReadError(path, f"its PixelSpacing differs from that of {first.name} of its series")
    if header.inverted != first.inverted:
        raise ReadError(path, f"its gray values run the other way than those of {first.name}")


def _find_step(
    path: Path, slices: Sequence[SliceHeader], normal: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the vector from one slice to the next."""
    if len(slices) == 1:
        thickness = slices[0].thickness
        if thickness is None:
            raise ReadError(
                _slice_path(path, slices[0].name), "one slice alone, and its thickness is missing"
            )
        return normal * thickness
    positions = np.array([header.position for header in slices])
    depths = positions @ normal
    steps = np.diff(depths)
    # The lower median: a missing slice makes a step longer, never shorter.
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])
    for at, length in enumerate(steps):
        here, there = slices[at].name, slices[at + 1].name
        if length < _SAME_POSITION_MM:
            raise ReadError(
                _slice_path(path, there),
                f"it lies at the place of {here}: the series holds several times or echoes",
            )
        if abs(length - usual) > max(_SAME_POSITION_MM, _SAME_STEP * usual):
            raise ReadError(
                _slice_path(path, there),
                f"a gap: it lies {length:.4g} mm behind {here}, where slices stand {usual:.4g} mm"
                " apart",
            )
    total = positions[-1] - positions[0]
    sideways = np.linalg.norm(
        (positions - positions[0]) - np.outer(depths - depths[0], normal), axis=1
    )
    if sideways.max() > max(_SAME_POSITION_MM, _SAME_STEP * usual):
        raise ReadError(
            path, "its slices are shifted sideways (a tilted gantry); resample them to a box first"
        )
    return np.asarray(total / (len(slices) - 1))


def _find_dtype(slices: Sequence[SliceHeader]) -> str:
    """Return the smallest type that holds all rescaled values."""
    if any(not header.slope.is_integer() or not header.intercept.is_integer() for header in slices):
        return "float32"
    low = high = 0.0
    for header in slices:
        reach = 2.0**header.bits
        ends = (-reach / 2, reach / 2 - 1) if header.is_signed else (0.0, reach - 1)
        values = [end * header.slope + header.intercept for end in ends]
        low, high = min(low, *values), max(high, *values)
    for name in ("uint8", "int16", "uint16", "int32"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return name
    return "float32"
