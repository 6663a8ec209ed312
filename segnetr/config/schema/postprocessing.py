"""Repairs of predicted labels as settings, and the record of how they were chosen."""

from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

PostprocessingStep = Annotated[
    str, Field(pattern=r"^(largest_component|fill_holes|remove_small:[1-9][0-9]{0,8})$")
]
"""One repair by its name; `remove_small:N` with the least number of pixels that a piece keeps."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PostprocessingTrial:
    """A repair that was tried on the validation cases.

    Attributes:
        step: Its name, as in `predict.post`, or `threshold:0.4`.
        gain: Mean gain of Dice over what was chosen before it.
        low: Lower end of the gain's bootstrap interval, which is wide enough for all trials of the
            same kind together; None: too few patients.
        high: Upper end.
        cases: Validation cases.
        taken: Whether the model repairs so: the interval lies above 0, and no other repair of this
            kind of which that is true gains more.
    """

    step: Annotated[str, Field(max_length=60)]
    gain: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None
    cases: int
    taken: bool
