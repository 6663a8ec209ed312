"""Postprocessing of predicted labels: the steps, and the record of how they were chosen."""

from typing import Annotated

from pydantic import ConfigDict, Field, FiniteFloat
from pydantic.dataclasses import dataclass

PostprocessingStep = Annotated[
    str, Field(pattern=r"^(largest_component|fill_holes|remove_small:[1-9][0-9]{0,8})$")
]
"""Name of a step; `remove_small:N` removes components of fewer than N pixels."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class PostprocessingTrial:
    """A postprocessing step that was evaluated on the validation cases.

    Attributes:
        step: Its name, as in `predict.postprocessing`, or `threshold:0.4`.
        gain: Mean increase of Dice over the steps chosen before.
        low: Lower end of the bootstrap interval of the gain, wide enough for all trials of the
            same kind. None: too few patients.
        high: Upper end.
        cases: Number of validation cases.
        taken: Whether the model uses the step: the interval is above 0, and no other step of its
            kind with such an interval has a larger gain.
    """

    step: Annotated[str, Field(max_length=60)]
    gain: FiniteFloat
    low: FiniteFloat | None
    high: FiniteFloat | None
    cases: int
    taken: bool
