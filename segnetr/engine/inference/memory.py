"""A promise about memory: how much a file will need, and how much may be worked on at once.

What networks take for a batch of windows is measured, once, by sending noise through them; what a
file takes is counted from its size. Bands of windows, labels and blocks of slices are of known
sizes, so the highest point can be told before the first voxel is read.
"""

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

from segnetr.config.memory_sizes import format_size
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.slice_stack import find_slice_plane
from segnetr.data.volumes.streamed_stack import count_block_bytes
from segnetr.engine.inference.label_store import count_resident, is_worth_a_file
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.slice_inferer import BatchPlan, SliceInferer
from segnetr.errors import ReadError, UsageError

_FLOAT = 4
# Beside what is counted: Python's own objects, buffers of the readers and of the packer.
_SLACK = 24 << 20
_SLACK_SHARE = 1.1
# Of repairs: int32 numbers of the pieces, masks, and the repaired labels.
_COPIES_OF_REPAIRS = 9
# Of an overlay: slices drawn at once and a spare, and the sample that black and white are found by.
_SHOWN_SLICES = 18
_SAMPLE_BYTES = 48 << 20
_STATUS = Path("/proc/self/status")
_PEAK = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """What a file takes beside the loaded program and its networks, in bytes.

    Attributes:
        fixed: However little is worked on at once.
        block: The least that each network holds of a volume that is read plane by plane, part of
            `fixed`.
    """

    fixed: int
    block: int


class MemoryLimit:
    """Keeps predictions below a limit of resident memory.

    Args:
        limit: Most bytes of main memory for the whole process; that of a graphics card is not
            counted.
        predictor: Networks that are loaded already.

    Raises:
        UsageError: If the program and its networks take more by themselves, or this system does
            not say how much memory a process has.
    """

    def __init__(self, limit: int, predictor: Predictor) -> None:
        self._limit = limit
        self._predictor = predictor
        _forget_peak()
        self._loaded = _read_status("VmRSS")
        self._rehearsed = _rehearse(predictor.networks, limit=limit, before=self._loaded)
        least = self._loaded + self._rehearsed[0][1]
        if least > limit:
            raise UsageError(
                f"--max-memory {format_size(limit)}: the program with this model and one window "
                f"of it takes {format_size(least)} before any file is read; give more"
            )

    def choose_batch_plan(
        self,
        image: ImageFile | VolumeFile,
        *,
        keep_probabilities: bool = False,
        keep_uncertainty: bool = False,
        overlay: bool = False,
        spill: Path | None = None,
    ) -> BatchPlan:
        """Choose how much of a file is worked on at once, as much as the limit leaves room for.

        Args:
            image: The file; a image is in memory already.
            keep_probabilities: Whether they are kept for every pixel.
            keep_uncertainty: Whether maps of uncertainty are kept.
            overlay: Whether a image with outlines is drawn.
            spill: Folder of the results, on whose disk the labels of a large volume may lie; None:
                they stay in memory.

        Raises:
            ReadError: If even the least of it does not fit; one line says what would be needed.
        """
        folder = spill if _may_spill(self._predictor, image) else None
        need = count_need(
            self._predictor,
            image,
            is_spilled=folder is not None,
            keep_probabilities=keep_probabilities,
            keep_uncertainty=keep_uncertainty,
            overlay=overlay,
        )
        room = self._limit - self._loaded
        for pace, network_bytes in reversed(self._rehearsed):
            spare = room - _with_slack(need.fixed + network_bytes)
            if spare >= 0:
                more = int(spare / _SLACK_SHARE) // len(self._predictor.networks)
                block = min(pace.block_bytes, need.block + more)
                return replace(pace, block_bytes=block, spill=folder)
        least = self._loaded + _with_slack(need.fixed + self._rehearsed[0][1])
        raise ReadError(
            image.path,
            f"at least {format_size(least)} of memory are needed for it, more than --max-memory "
            f"{format_size(self._limit)}; give more, or leave --save-prob, --save-uncertainty and "
            "repairs away",
        )

    def check_image(self, path: Path, pixels: int) -> None:
        """Refuse a image by its size before it is decoded.

        Raises:
            ReadError: If it would not fit by itself.
        """
        # Packed bytes, decoded ones of up to 3 x 2 bytes, and a copy of them.
        least = self._loaded + self._rehearsed[0][1] + 13 * pixels
        if least > self._limit:
            raise ReadError(
                path,
                f"at least {format_size(least)} of memory are needed to decode its {pixels} "
                f"pixels, more than --max-memory {format_size(self._limit)}; give more",
            )


def list_paces(networks: tuple[SliceInferer, ...]) -> list[BatchPlan]:
    """Give ways of working, from one view of one window up to the configured batch."""
    windows = max(network.window_batch for network in networks)
    views = max(len(network.tta_transforms) for network in networks)
    paces = []
    while windows > 1:
        paces.append(BatchPlan(windows=windows, views=views))
        windows //= 2
    while views >= 1:
        paces.append(BatchPlan(windows=1, views=views))
        views //= 2
    return paces[::-1]


def _rehearse(
    networks: tuple[SliceInferer, ...], *, limit: int, before: int
) -> list[tuple[BatchPlan, int]]:
    """Measure what networks take beyond `before`, from the least up, as far as there is room.

    Where the highest point of the process cannot be set back, it may be an older one, of loading:
    a bound that is true as well.
    """
    measured: list[tuple[BatchPlan, int]] = []
    for pace in list_paces(networks):
        if measured:
            last, taken = measured[-1]
            expected = taken * pace.windows * pace.views / (last.windows * last.views)
            if before + _with_slack(int(expected)) > limit:
                break
        for network in networks:
            network.rehearse(pace)
        measured.append((pace, _read_status("VmHWM") - before))
    return measured


def count_need(
    predictor: Predictor,
    image: ImageFile | VolumeFile,
    *,
    is_spilled: bool = False,
    keep_probabilities: bool = False,
    keep_uncertainty: bool = False,
    overlay: bool = False,
) -> MemoryNeed:
    """Count what a file takes beside the loaded program.

    Args:
        predictor: The networks.
        image: The file; a image that was read counts as well.
        is_spilled: Whether its labels lie on the disk.
        keep_probabilities: Whether they are kept for every pixel.
        keep_uncertainty: Whether maps of uncertainty are kept.
        overlay: Whether a image with outlines is drawn.
    """
    pixels = math.prod(image.grid)
    plane = _find_plane(predictor, image)
    classes = predictor.num_classes
    labels = pixels
    if is_spilled:
        labels = count_resident(image.grid, predictor.networks[0].slices.axis)
    fixed = labels + pixels * (_COPIES_OF_REPAIRS if predictor.post else 0)
    if keep_probabilities:
        # As kept, and in the file's order and packed on the way to the disk.
        fixed += (2 if image.kind == "volume" else 3) * classes * _FLOAT * pixels
    if keep_uncertainty:
        # One or two maps as kept; of images also packed on the way to the disk.
        maps = 2 if predictor.views > 1 else 1
        fixed += (1 if image.kind == "volume" else 3) * maps * _FLOAT * pixels
        fixed += 4 * _FLOAT * math.prod(plane)  # sums of entropies and of variances, and a class
    block = 0
    if isinstance(image, VolumeFile):
        stored = math.prod(image.grid[:2]) * image.volume_header.dtype.itemsize
        # A plane as stored, as values, scaled in float64, and packed.
        fixed += image.channels * (3 * stored + 24 * math.prod(image.grid[:2]))
        fixed += _SHOWN_SLICES * stored + _SAMPLE_BYTES if overlay else 0
        block = max(count_block_bytes(image, network.slices) for network in predictor.networks)
    else:
        fixed += _count_image(image, overlay=overlay)
    is_scaled = predictor.is_observed or keep_uncertainty
    fixed += sum(
        block + _count_network(each, image, plane, is_scaled=is_scaled)
        for each in predictor.networks
    )
    # The label, the highest probability, two of a class, and a resampled one.
    fixed += 5 * _FLOAT * math.prod(plane)
    return MemoryNeed(fixed=fixed, block=block)


def _may_spill(predictor: Predictor, image: ImageFile | VolumeFile) -> bool:
    """Tell whether labels may lie on the disk: they are many, and nothing needs them as a whole."""
    return isinstance(image, VolumeFile) and not predictor.post and is_worth_a_file(image.grid)


def _count_image(image: ImageFile, *, overlay: bool) -> int:
    """Count what comes beside a file that was read whole: copies while it is scaled and written."""
    copies = 2 * image.array.nbytes + 3 * math.prod(image.grid)
    if image.kind == "volume":
        return copies + 18 * image.array.size  # scaled in float64, then uint16
    return copies + (16 * math.prod(image.grid) if overlay else 0)


def _count_network(
    network: SliceInferer,
    image: ImageFile | VolumeFile,
    grid: tuple[int, int],
    *,
    is_scaled: bool,
) -> int:
    """Count what one network holds of a slice: what it sees, and the sums of its answers.

    With `is_scaled` also copies of the answers that the entropy is taken of, the variance over
    views, and the foreground whose pieces are counted.
    """
    seen = grid
    if image.kind == "volume":
        seen = find_slice_plane(grid, image.spacing, network.slices)
    height, width = (max(pair) for pair in zip(seen, network.image_size, strict=True))
    # Float64 on the way of normalizing, float32 as prepared, padded and as read.
    prepared = height * width * network.channels * 32
    classes = network.num_classes
    if network.mode == "resize":
        return prepared + (
            16 * height * width + _count_scaled(classes, height * width) if is_scaled else 0
        )
    rows = min(height, network.image_size[0]) if seen == grid else height
    # Sums, the band given away, and its copy while rows move up; and the weights of all pixels.
    sums = 4 * _FLOAT * (classes + is_scaled) * rows * width
    if is_scaled:
        sums += 16 * height * width + _count_scaled(classes, rows * width)
    return prepared + sums + 2 * _FLOAT * height * width


def _count_scaled(classes: int, pixels: int) -> int:
    """Count scaled copies of answers while they are made: logarithms, powers, entropies."""
    return _FLOAT * (4 * classes + 4) * pixels


def _find_plane(predictor: Predictor, image: ImageFile | VolumeFile) -> tuple[int, int]:
    axis = predictor.networks[0].slices.axis if image.kind == "volume" else 2
    height, width = (side for at, side in enumerate(image.grid) if at != axis)
    return height, width


def _with_slack(needed: int) -> int:
    return _SLACK + int(_SLACK_SHARE * needed)


def _forget_peak() -> None:
    """Let the highest point be that from now on: a long life may have had a higher one before."""
    with contextlib.suppress(OSError):
        _PEAK.write_text(_RESET_PEAK)


def _read_status(field: str) -> int:
    """Read what the system knows of this process: VmRSS, memory now; VmHWM, the most so far.

    Not `getrusage`, whose highest value is that of the parent where it was larger.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise UsageError(
            "--max-memory: this system does not say how much memory a process has (no "
            f"{_STATUS}); run without it, or under Linux"
        ) from error
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(found.split()[1])
