"""Times of the published code, recorded on another machine at the start of this project.

These codes are not installed here. What compares a time there with one here is a network that was
timed on both machines: the time of each is divided by that of this yardstick.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """The time of a published code for 8 images in float32, without gradient, at its image size.

    Attributes:
        seconds: What it took there.
        yardstick: Network of the yardstick, and who made the code of it that is timed here.
        yardstick_seconds: What the yardstick took there.
        is_same_code: The yardstick there was the code that is timed here, on one thread too. Else
            it was the published code of the same network and ran on two threads: rough.
    """

    seconds: float
    yardstick: tuple[str, str]
    yardstick_seconds: float
    is_same_code: bool


# CPU time of one thread; the yardstick is timm's MobileViT-S, channels first.
_ONE_THREAD = {
    "moa_tiny": 1.326,
    "moa_small": 2.150,
    "moa_base": 3.552,
    "mobile_former_26m": 0.0426,
    "mobile_former_52m": 0.0442,
    "mobile_former_96m": 0.0705,
    "mobile_former_151m": 0.1042,
    "mobile_former_214m": 0.1292,
    "mobile_former_294m": 0.1574,
    "mobile_former_508m": 0.2276,
}
# Wall clock of two threads; the yardstick there is the official code of Swin-T.
_TWO_THREADS = {
    "vitae_tiny": 0.196,
    "vitae_6m": 0.239,
    "vitae_13m": 0.368,
    "vitae_small": 0.614,
    "vitae_base": 1.740,
    "vitaev2_s": 0.520,
    "vitaev2_48m": 1.188,
    "vitaev2_b": 1.993,
    "cvt_21": 0.711,
    "cmt_ti": 0.089,
    "cmt_xs": 0.206,
    "cmt_s": 0.397,
    "cmt_b": 0.890,
}
ORIGINALS = {
    name: Original(
        seconds=seconds,
        yardstick=("mobilevit_s", "timm"),
        yardstick_seconds=0.4778,
        is_same_code=True,
    )
    for name, seconds in _ONE_THREAD.items()
} | {
    name: Original(
        seconds=seconds,
        yardstick=("swin_tiny", "timm"),
        yardstick_seconds=0.426,
        is_same_code=False,
    )
    for name, seconds in _TWO_THREADS.items()
}


def compare_with_original(name: str, *, ours: float, yardstick: float) -> dict[str, Any]:
    """Return the row that compares our network with its published code.

    Args:
        name: A key of `ORIGINALS`.
        ours: Seconds of ours, here.
        yardstick: Seconds of the yardstick, here.
    """
    original = ORIGINALS[name]
    there, here = original.seconds / original.yardstick_seconds, ours / yardstick
    return {
        "network": name,
        "mode": "original",
        "by": "published code, another machine",
        "seconds": ours,
        "original_seconds": original.seconds,
        "yardstick": " by ".join(original.yardstick),
        "yardstick_seconds": yardstick,
        "original_yardstick_seconds": original.yardstick_seconds,
        "is_same_code": original.is_same_code,
        "ours_faster": there / here,
    }
