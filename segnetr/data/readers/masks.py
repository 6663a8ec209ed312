"""Convert the values of a mask file to class indices.

Supported: class indices; for two classes also 0 and the highest value (255, 65535, 1-bit); gray
palettes by their colors (also inverted ones), other palettes by their indices; colors with equal
channels; for two classes also edges softened by JPEG or resizing; and tables of values or colors
per class. All other values are rejected, and the message lists them: a wrong guess would end up in
the training data.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segnetr.data.readers.image import decode_image, native_gray
from segnetr.data.readers.image_file import (
    ClassValues,
    FileValue,
    ImageFile,
    MaskFile,
    MaskValuesError,
)

_HALF = 128
_NEARLY_BLACK, _NEARLY_WHITE = 15, 240
_SOFT_SHARE = 0.02
# JPEG spreads an edge over its 8 x 8 block.
_EDGE_REACH = 8
_SHOWN_VALUES = 8
_PIECE = 1 << 16


def read_image_mask(
    path: Path, *, classes: int, values: ClassValues | None = None, max_pixels: int
) -> MaskFile:
    """Read an image as class indices (H, W).

    Args:
        path: A PNG, JPEG, BMP or TIFF file.
        classes: Number of classes K, background included.
        values: As in `read_mask_file`.
        max_pixels: Reject more pixels than this.

    Raises:
        ReadError: If the file cannot be read.
        MaskValuesError: If its values are not a mask of K classes.
    """
    image, warnings = decode_image(path, max_pixels=max_pixels)
    if values is not None:
        stored = file_values(path, image, colors=has_colors(values))
        return MaskFile(path=path, array=map_values(path, stored, values), warnings=warnings)
    if image.mode in ("P", "PA"):
        stored = _palette_values(path, image, classes=classes)
    else:
        stored = _gray_values(path, image)
    array, more = index_classes(path, stored, classes=classes)
    return MaskFile(path=path, array=array, warnings=warnings + more)


def file_values(path: Path, image: Image.Image, *, colors: bool) -> NDArray[Any]:
    """Return the values of a mask as stored.

    Args:
        path: The file, for messages.
        image: The decoded image.
        colors: Return colors, even if the file holds gray values.

    Returns:
        Colors (H, W, 3); or gray values (H, W), or the indices of a color palette.

    Raises:
        MaskValuesError: If the image has colors and `colors` is False.
    """
    if colors:
        return np.asarray(image.convert("RGB"))
    if image.mode in ("P", "PA"):
        indices, table = _read_palette(image)
        used = find_values(indices)
        gray = (table[used] == table[used][:, :1]).all()
        return np.asarray(table[:, 0][indices]) if gray else indices
    return _gray_values(path, image)


def index_volume(volume: ImageFile, *, classes: int, values: ClassValues | None = None) -> MaskFile:
    """Convert a volume to class indices (X, Y, Z).

    Args:
        volume: A volume with one channel.
        classes: Number of classes K, background included.
        values: As in `read_mask_file`.

    Raises:
        MaskValuesError: If its values are not a mask of K classes.
    """
    path = volume.path
    if values is None:
        array, more = index_classes(path, volume.array, classes=classes)
    else:
        array, more = map_values(path, volume.array, values), ()
    return MaskFile(
        path=path,
        array=array,
        affine=volume.affine,
        spacing=volume.spacing,
        warnings=volume.warnings + more,
    )


def index_classes(
    path: Path, values: NDArray[Any], *, classes: int
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Convert the values of a mask to class indices.

    Args:
        path: The file, for messages.
        values: Values of any shape and type.
        classes: Number of classes K, background included; at most 256.

    Returns:
        Values 0..K-1 in the shape of `values`, and warnings.

    Raises:
        MaskValuesError: If the values are not a mask of K classes.
    """
    found = find_values(values)
    if found[0] >= 0 and found[-1] < classes and (found == np.round(found)).all():
        return values.astype(np.uint8), ()
    if classes == 2:
        highest = _highest_value(values.dtype)
        if all(value in (0, 255) for value in found) or all(v in (0, highest) for v in found):
            return (values != 0).astype(np.uint8), ()
        if _has_soft_edges(values):
            note = (
                f"soft edges are thresholded at {_HALF}: {len(found)} values where two are expected"
            )
            return (values >= _HALF).astype(np.uint8), (note,)
    wanted = "0 and 1, or 0 and 255" if classes == 2 else f"0 to {classes - 1}"
    raise MaskValuesError(
        path,
        f"not a mask of {classes} classes: it holds {_show(found)} where {wanted} are expected",
    )


def has_colors(values: ClassValues) -> bool:
    """Return whether a table contains colors."""
    return any(isinstance(value, tuple) for of_class in values for value in of_class)


def map_values(path: Path, stored: NDArray[Any], values: ClassValues) -> NDArray[np.uint8]:
    """Convert the values of a mask to class indices with a table.

    Args:
        path: The file, for messages.
        stored: Values of any shape, or colors (..., 3) if the table contains colors.
        values: The values of each class.

    Returns:
        Class indices, without the color axis.

    Raises:
        MaskValuesError: If the table assigns a value to no class.
    """
    colors = has_colors(values)
    codes = pack_colors(stored) if colors else stored
    found = np.unique(codes)
    classes = np.full(len(found), -1)
    for index, of_class in enumerate(values):
        classes[np.isin(found, [_code(value, colors=colors) for value in of_class])] = index
    if (classes < 0).any():
        shown = [show_code(code, colors=colors) for code in found[classes < 0]]
        more = f" and {len(shown) - _SHOWN_VALUES} more" if len(shown) > _SHOWN_VALUES else ""
        raise MaskValuesError(
            path,
            f"it holds {', '.join(shown[:_SHOWN_VALUES])}{more}, which the dataset description"
            " assigns to no class",
        )
    return np.asarray(classes.astype(np.uint8)[np.searchsorted(found, codes)])


def pack_colors(stored: NDArray[Any]) -> NDArray[np.int64]:
    """Encode colors (..., 3) as one number each."""
    rgb = stored.astype(np.int64)
    return np.asarray((rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2])


def unpack_color(code: int) -> tuple[int, int, int]:
    """Decode a number of `pack_colors` to a color."""
    return (code >> 16, (code >> 8) & 255, code & 255)


def show_code(code: Any, *, colors: bool) -> str:
    """Return a value or an encoded color as text."""
    return str(unpack_color(int(code))) if colors else f"{code:g}"


def _code(value: FileValue, *, colors: bool) -> int:
    if not colors:
        assert isinstance(value, int)
        return value
    red, green, blue = value if isinstance(value, tuple) else (value, value, value)
    return (red << 16) | (green << 8) | blue


def find_values(values: NDArray[Any]) -> NDArray[Any]:
    """Return the distinct values in ascending order."""
    if values.dtype == np.uint8:
        # In memory order, which avoids a copy, and in chunks: bincount converts values to 8 bytes.
        flat = values.ravel(order="K")
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, flat.size, _PIECE):
            counts += np.bincount(flat[start : start + _PIECE], minlength=256)
        return np.flatnonzero(counts)
    return np.unique(values)


def _highest_value(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 255


def _show(found: NDArray[Any]) -> str:
    shown = ", ".join(f"{value:g}" for value in found[:_SHOWN_VALUES].tolist())
    more = len(found) - _SHOWN_VALUES
    noun = "the value" if len(found) == 1 else "the values"
    return f"{noun} {shown}" + (f" and {more} more up to {found[-1]:g}" if more > 0 else "")


def _has_soft_edges(values: NDArray[Any]) -> bool:
    """Return whether all values between black and white are in a thin border between the two."""
    if values.ndim != 2 or values.dtype != np.uint8:
        return False
    dark, bright = values <= _NEARLY_BLACK, values >= _NEARLY_WHITE
    between = ~(dark | bright)
    if not bright.any() or between.mean() > _SOFT_SHARE:
        return False
    reach = np.ones((2 * _EDGE_REACH + 1,) * 2, dtype=np.uint8)
    near_dark = cv2.dilate(dark.astype(np.uint8), reach) > 0
    near_bright = cv2.dilate(bright.astype(np.uint8), reach) > 0
    stray = (values != 0) & (values != 255) & ~(near_dark & near_bright)
    return not stray.any()


def _gray_values(path: Path, image: Image.Image) -> NDArray[Any]:
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    values = native_gray(image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        values = np.asarray(image.convert("RGB"))
    if values.ndim == 2:
        return values
    if image.mode in ("LA", "La", "RGBA", "RGBa"):
        values = _without_alpha(path, values)
    elif image.mode == "RGBX":
        values = values[..., :3]
    if not (values == values[..., :1]).all():
        colors = np.unique(values.reshape(-1, values.shape[-1]), axis=0)
        shown = ", ".join(str(tuple(color)) for color in colors[:4].tolist())
        shown += ", ..." if len(colors) > 4 else ""
        raise MaskValuesError(
            path, f"it is a color image and not a mask: {len(colors)} colors, {shown}"
        )
    return values[..., 0]


def _without_alpha(path: Path, values: NDArray[Any]) -> NDArray[Any]:
    """Drop the alpha channel, unless it holds the mask."""
    plain, alpha = values[..., :-1], values[..., -1]
    if (plain == plain[:1, :1]).all() and not (alpha == alpha[:1, :1]).all():
        raise MaskValuesError(
            path, "the mask is in the alpha channel; save it as gray values without alpha"
        )
    return plain


def _palette_values(path: Path, image: Image.Image, *, classes: int) -> NDArray[Any]:
    indices, table = _read_palette(image)
    used = find_values(indices)
    if (table[used] == table[used][:, :1]).all():
        grays: NDArray[np.uint8] = table[:, 0][indices]
        return grays
    black = [int(index) for index in used if not table[index].any()]
    if used[-1] < classes and black in ([], [0]):
        return indices
    shown = ", ".join(f"{index}: {tuple(table[index].tolist())}" for index in used[:4].tolist())
    shown += ", ..." if len(used) > 4 else ""
    raise MaskValuesError(path, f"its palette does not list {classes} classes: {shown}")


def _read_palette(image: Image.Image) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return the indices (H, W) and the colors (256, 3) of a palette."""
    indices = np.asarray(image) if image.mode == "P" else np.asarray(image.getchannel("P"))
    table: NDArray[np.uint8] = np.zeros((256, 3), dtype=np.uint8)
    colors = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    table[: len(colors)] = colors
    return indices, table
