"""Keep prediction below a memory limit: estimate the need of a file and choose batch sizes.

The memory of a forward pass is measured once by running the networks on noise. The memory of a file
is computed from its size. Bands of rows, labels and blocks of slices have known sizes, so the peak
is known before the first voxel is read.
"""

import contextlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

from segnetr.config.memory_sizes import format_size
from segnetr.data.readers.image_file import ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.data.volumes.resample import count_resampling_bytes
from segnetr.data.volumes.slice_stack import find_slice_plane
from segnetr.data.volumes.streamed_stack import count_block_bytes
from segnetr.engine.inference.label_store import count_resident, is_worth_a_file
from segnetr.engine.inference.predictor import Predictor
from segnetr.engine.inference.slice_inferer import BatchPlan, SliceInferer
from segnetr.errors import ReadError, UsageError

_FLOAT = 4
# Not computed: Python objects, and buffers of the readers and of the compressor.
_SLACK = 24 << 20
_SLACK_SHARE = 1.1
# For postprocessing: int32 component indices, masks, and the new labels.
_POSTPROCESSING_BYTES = 9
# For an overlay: slices that are drawn at once plus a spare, and the sample for the gray range.
_SHOWN_SLICES = 18
_SAMPLE_BYTES = 48 << 20
_STATUS = Path("/proc/self/status")
_PEAK = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeed:
    """Memory that a file needs in addition to the loaded program and its networks, in bytes.

    Attributes:
        fixed: Needed with any batch size.
        block: Smallest block that each network holds of a volume that is read plane by plane. Part
            of `fixed`.
    """

    fixed: int
    block: int


class MemoryLimit:
    """Keeps predictions below a limit of resident memory.

    Args:
        limit: Maximum bytes of main memory for the whole process. GPU memory is not counted.
        predictor: The loaded networks.

    Raises:
        UsageError: If the program and its networks alone need more, or the system does not report
            the memory of a process.
    """

    def __init__(self, limit: int, predictor: Predictor) -> None:
        self._limit = limit
        self._predictor = predictor
        _reset_peak()
        self._loaded = _read_status("VmRSS")
        self._measured = _measure_plans(predictor.networks, limit=limit, before=self._loaded)
        least = self._loaded + self._measured[0][1]
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
        """Return the largest batch sizes for a file that fit into the limit.

        Args:
            image: The file. A 2-D image is already in memory.
            keep_probabilities: Whether probabilities are kept for every pixel.
            keep_uncertainty: Whether uncertainty maps are kept.
            overlay: Whether an overlay image is drawn.
            spill: Output folder, on whose disk the labels of a large volume may be kept. None: in
                memory.

        Raises:
            ReadError: If even the smallest batch does not fit. One line states the memory needed.
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
        for plan, network_bytes in reversed(self._measured):
            spare = room - _with_slack(need.fixed + network_bytes)
            if spare >= 0:
                more = int(spare / _SLACK_SHARE) // len(self._predictor.networks)
                block = min(plan.block_bytes, need.block + more)
                return replace(plan, block_bytes=block, spill=folder)
        least = self._loaded + _with_slack(need.fixed + self._measured[0][1])
        raise ReadError(
            image.path,
            f"at least {format_size(least)} of memory are needed for it, more than --max-memory "
            f"{format_size(self._limit)}; give more, or leave --save-prob, --save-uncertainty and "
            "postprocessing out",
        )

    def check_image(self, path: Path, pixels: int) -> None:
        """Reject an image by its size before it is decoded.

        Raises:
            ReadError: If the image alone does not fit.
        """
        # Compressed bytes, up to 3 x 2 decoded bytes, and a copy of them.
        least = self._loaded + self._measured[0][1] + 13 * pixels
        if least > self._limit:
            raise ReadError(
                path,
                f"at least {format_size(least)} of memory are needed to decode its {pixels} "
                f"pixels, more than --max-memory {format_size(self._limit)}; give more",
            )


def list_batch_plans(networks: tuple[SliceInferer, ...]) -> list[BatchPlan]:
    """Return batch plans, from one augmentation of one window up to the configured batch."""
    windows = max(network.window_batch for network in networks)
    tta_batch = max(len(network.tta_transforms) for network in networks)
    plans = []
    while windows > 1:
        plans.append(BatchPlan(windows=windows, tta_batch=tta_batch))
        windows //= 2
    while tta_batch >= 1:
        plans.append(BatchPlan(windows=1, tta_batch=tta_batch))
        tta_batch //= 2
    return plans[::-1]


def _measure_plans(
    networks: tuple[SliceInferer, ...], *, limit: int, before: int
) -> list[tuple[BatchPlan, int]]:
    """Measure the memory of each plan beyond `before`, smallest first, as far as it fits.

    If the peak of the process cannot be reset, it may be an older one, from loading. That is an
    upper bound as well.
    """
    measured: list[tuple[BatchPlan, int]] = []
    for plan in list_batch_plans(networks):
        if measured:
            last, taken = measured[-1]
            expected = taken * plan.windows * plan.tta_batch / (last.windows * last.tta_batch)
            if before + _with_slack(int(expected)) > limit:
                break
        for network in networks:
            network.warm_up(plan)
        measured.append((plan, _read_status("VmHWM") - before))
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
    """Return the memory that a file needs in addition to the loaded program.

    Args:
        predictor: The networks.
        image: The file. An image that was already read counts as well.
        is_spilled: Whether its labels are kept on the disk.
        keep_probabilities: Whether probabilities are kept for every pixel.
        keep_uncertainty: Whether uncertainty maps are kept.
        overlay: Whether an overlay image is drawn.
    """
    pixels = math.prod(image.grid)
    plane = _file_plane(predictor, image)
    classes = predictor.num_classes
    labels = pixels
    if is_spilled:
        labels = count_resident(image.grid, predictor.networks[0].slices.axis)
    fixed = labels + pixels * (_POSTPROCESSING_BYTES if predictor.postprocessing else 0)
    if keep_probabilities:
        # The kept array, and for writing a copy in the file's order and compressed bytes.
        fixed += (2 if image.kind == "volume" else 3) * classes * _FLOAT * pixels
    if keep_uncertainty:
        # One or two kept maps. For images also compressed bytes while they are written.
        maps = 2 if predictor.num_views > 1 else 1
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
        fixed += _image_bytes(image, overlay=overlay)
    is_scaled = predictor.collects_features or keep_uncertainty
    fixed += sum(
        block + _network_bytes(each, image, plane, is_scaled=is_scaled)
        for each in predictor.networks
    )
    # The label, the highest probability, two of a class, and a resampled one.
    fixed += 5 * _FLOAT * math.prod(plane)
    return MemoryNeed(fixed=fixed, block=block)


def _may_spill(predictor: Predictor, image: ImageFile | VolumeFile) -> bool:
    """Return whether labels may be kept on the disk: many, and not needed as a whole."""
    is_volume = isinstance(image, VolumeFile)
    return is_volume and not predictor.postprocessing and is_worth_a_file(image.grid)


def _image_bytes(image: ImageFile, *, overlay: bool) -> int:
    """Return the bytes of copies of a file that was read whole, while it is scaled and written."""
    copies = 2 * image.array.nbytes + 3 * math.prod(image.grid)
    if image.kind == "volume":
        return copies + 18 * image.array.size  # scaled in float64, then uint16
    return copies + (16 * math.prod(image.grid) if overlay else 0)


def _network_bytes(
    network: SliceInferer,
    image: ImageFile | VolumeFile,
    grid: tuple[int, int],
    *,
    is_scaled: bool,
) -> int:
    """Return the bytes that one network holds of a slice: its input and the sums of its output.

    With `is_scaled` this includes copies of the probabilities for the entropy, the variance over
    augmentations, and the foreground whose components are counted.
    """
    seen, resampling = grid, 0
    if image.kind == "volume":
        seen = find_slice_plane(grid, image.spacing, network.slices)
        resampling = count_resampling_bytes(grid, seen, channels=network.channels)
    height, width = (max(pair) for pair in zip(seen, network.image_size, strict=True))
    # Float64 while normalizing, float32 as prepared, padded and as read.
    prepared = height * width * network.channels * 32 + resampling
    classes = network.num_classes
    if network.mode == "resize":
        return prepared + (
            16 * height * width + _scaled_bytes(classes, height * width) if is_scaled else 0
        )
    rows = min(height, network.image_size[0]) if seen == grid else height
    # Sums, the returned band, its copy while rows move up, and the weights of all pixels.
    sums = 4 * _FLOAT * (classes + is_scaled) * rows * width
    if is_scaled:
        sums += 16 * height * width + _scaled_bytes(classes, rows * width)
    return prepared + sums + 2 * _FLOAT * height * width


def _scaled_bytes(classes: int, pixels: int) -> int:
    """Return the bytes of scaled copies of probabilities: logarithms, powers, entropies."""
    return _FLOAT * (4 * classes + 4) * pixels


def _file_plane(predictor: Predictor, image: ImageFile | VolumeFile) -> tuple[int, int]:
    axis = predictor.networks[0].slices.axis if image.kind == "volume" else 2
    height, width = (side for at, side in enumerate(image.grid) if at != axis)
    return height, width


def _with_slack(needed: int) -> int:
    return _SLACK + int(_SLACK_SHARE * needed)


def _reset_peak() -> None:
    """Reset the peak memory of this process, which may have been higher before."""
    with contextlib.suppress(OSError):
        _PEAK.write_text(_RESET_PEAK)


def _read_status(field: str) -> int:
    """Read a field of this process: VmRSS, memory now; VmHWM, peak so far.

    `getrusage` would return the peak of the parent process if that was larger.
    """
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise UsageError(
            "--max-memory: this system does not report the memory of a process (no "
            f"{_STATUS}); run without it, or under Linux"
        ) from error
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(found.split()[1])
