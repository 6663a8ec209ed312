"""Questions about sizes that an exporter may leave open."""

import torch


def may_differ(sides: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Say whether sides may be others than wanted.

    While a network is exported for any height and width, its sides are symbols. To compare them
    would bind the graph, without a word, to images for which the answer is the same; so the answer
    is yes, and padding by nothing or resizing to the same size is written down.

    Args:
        sides: Numbers, or symbols.
        wanted: As many of them.
    """
    is_open = any(isinstance(side, torch.SymInt) for side in (*sides, *wanted))
    return is_open or sides != wanted


def missing_to_multiple(size: int, side: int) -> int:
    """Give how much is missing from `size` to the next multiple of `side`.

    Written so that a symbol in the place of `size` gives a sum that exporters see to be a multiple;
    with a remainder of `-size` they search for minutes.
    """
    return (size + side - 1) // side * side - size
