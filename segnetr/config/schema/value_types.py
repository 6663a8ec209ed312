"""Numbers and sizes that several sections of the schema use."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
PositiveNumber = Annotated[float, Field(gt=0)]
Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Even = Annotated[int, Field(ge=2, multiple_of=2)]
ImageSide = Annotated[int, Field(ge=32, le=8192)]


def list_to_tuple(value: Any) -> Any:
    """Return a list as a tuple: the strict check of a model card accepts no list for a tuple."""
    return tuple(value) if isinstance(value, list) else value


def _to_size(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else list_to_tuple(value)


ImageSize = Annotated[tuple[ImageSide, ImageSide], BeforeValidator(_to_size)]
"""(height, width) in pixels; one number is a square."""

Scalar = bool | int | float
EncoderSetting = Annotated[Scalar | str | tuple[Scalar, ...], BeforeValidator(list_to_tuple)]
