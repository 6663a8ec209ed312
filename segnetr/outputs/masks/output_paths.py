"""Where each result goes, decided before the first file is written.

Two inputs may have one name in the output folder: `a.png` beside `a.jpg`, `a.png` from two folders,
or `a.png` whose probabilities are called like the mask of `a_prob.png`. All names are laid out up
front, so that nothing is ever overwritten by a later file, nor an input by its own result.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from segnetr.errors import UsageError
from segnetr.outputs.masks.format import check_format, choose_suffix

PROBABILITY_SUFFIXES = (".png", ".npz", ".nii.gz")
UNCERTAINTY_KINDS = ("entropy", "variance")
_NIFTI_SUFFIXES = (".nii.gz", ".nii")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPath:
    """The place of one result.

    Attributes:
        source: The input file.
        relative: The mask's path below the output folder.
    """

    source: Path
    relative: Path


def plan_output_paths(
    inputs: Sequence[tuple[Path, Path]], *, out: Path, format_name: str = "same"
) -> list[OutputPath]:
    """Give each input a name of its own below the output folder.

    A result has its input's sub-folder, stem and format (`a.nii.gz` stays `a.nii.gz`, `a.jpg`
    becomes `a.png`). Where that name is wanted twice, it stays with the input that has it
    already; the others get the suffix of their input into the name (`a_jpg.png`), then its folder
    (`left_a_jpg.png`), then a number. The names do not depend on the order of the inputs, and
    letter case makes no difference between names, as on many disks it does not.

    Args:
        inputs: Input files, each with its path relative to the folder it was found below.
        out: The output folder.
        format_name: One of `segnetr.outputs.masks.format.MASK_FORMATS`.

    Returns:
        The plan, in the order of the inputs.

    Raises:
        UsageError: If results would lie among the inputs, a relative path leads elsewhere, or an
            input cannot have a mask of this format.
    """
    check_format(format_name)
    for source, relative in inputs:
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise UsageError(f"{source}: its place below --out would be '{relative}', outside it")
    levels = [0] * len(inputs)
    while True:
        names = [
            _name_at(*pair, level=level, format_name=format_name)
            for pair, level in zip(inputs, levels, strict=True)
        ]
        losers = _find_losers(inputs, names, levels)
        if not losers:
            break
        for index in losers:
            levels[index] += 1
    plan = [
        OutputPath(source=source, relative=name)
        for (source, _), name in zip(inputs, names, strict=True)
    ]
    _refuse_input_folders(plan, out)
    return plan


def split_name(name: str) -> tuple[str, str]:
    """Cut a file's name into stem and suffix, `.nii.gz` being one suffix; letter case is kept."""
    for suffix in _NIFTI_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    path = PurePath(name)
    return path.stem, path.suffix


def is_nifti_name(path: PurePath) -> bool:
    """Tell whether a file is NIfTI by its name."""
    return path.name.lower().endswith(_NIFTI_SUFFIXES)


def overlay_path(mask: Path) -> Path:
    """Give the name of the overlay image that belongs to a mask."""
    return mask.with_name(f"{split_name(mask.name)[0]}_overlay.png")


def probability_path(mask: Path, suffix: str) -> Path:
    """Give the name of the file of probabilities that belongs to a mask."""
    return mask.with_name(f"{split_name(mask.name)[0]}_prob{suffix}")


def uncertainty_path(mask: Path, kind: str, suffix: str) -> Path:
    """Give the name of a map of uncertainty, one of `UNCERTAINTY_KINDS`, that belongs to a mask."""
    return mask.with_name(f"{split_name(mask.name)[0]}_{kind}{suffix}")


def has_results(
    mask: Path, *, overlay: bool, save_prob: bool, save_uncertainty: bool = False
) -> bool:
    """Tell whether all that is wanted of one input is there.

    Args:
        mask: Its mask.
        overlay: Whether a image with outlines is wanted as well.
        save_prob: Whether probabilities are wanted as well.
        save_uncertainty: Whether maps of uncertainty are wanted as well; the entropy, which is
            written last, stands for them.
    """
    if not mask.is_file() or (overlay and not overlay_path(mask).is_file()):
        return False
    wanted = []
    if save_prob:
        wanted.append([probability_path(mask, suffix) for suffix in PROBABILITY_SUFFIXES])
    if save_uncertainty:
        wanted.append([uncertainty_path(mask, "entropy", end) for end in PROBABILITY_SUFFIXES])
    return all(any(place.is_file() for place in places) for places in wanted)


def _name_at(source: Path, relative: Path, *, level: int, format_name: str) -> Path:
    """Give the mask's path at a level of distinctness: plain, suffix, folder, numbers."""
    stem, suffix = split_name(relative.name)
    wanted = choose_suffix(source, suffix, format_name)
    if level >= 1:
        stem = f"{stem}_{suffix.strip('.').replace('.', '_')}"
    if level >= 2:
        stem = f"{source.absolute().parent.name}_{stem}"
    if level >= 3:
        stem = f"{stem}_{level - 1}"
    return relative.with_name(stem + wanted)


def _find_losers(
    inputs: Sequence[tuple[Path, Path]], names: Sequence[Path], levels: Sequence[int]
) -> set[int]:
    """Find the inputs that need another name because theirs is wanted twice."""
    claims: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(names):
        for path in _owned(name):
            claims[path.as_posix().casefold()].add(index)
    losers: set[int] = set()
    for claimants in claims.values():
        if len(claimants) > 1:
            losers |= claimants - _find_keeper(claimants, inputs, names, levels)
    return losers


def _find_keeper(
    claimants: set[int],
    inputs: Sequence[tuple[Path, Path]],
    names: Sequence[Path],
    levels: Sequence[int],
) -> set[int]:
    """Choose the one that keeps its name, or nobody while a better name is left for all."""
    unchanged = {index for index in claimants if names[index] == inputs[index][1]}
    if len(unchanged) == 1:
        return unchanged
    # Numbers tell nothing apart by themselves: there the first keeps, or it would never end.
    numbered = [index for index in claimants if levels[index] >= 2]
    if len(numbered) == len(claimants):
        return {min(numbered, key=lambda index: (-levels[index], str(inputs[index][0])))}
    return set()


def _owned(mask: Path) -> Iterator[Path]:
    yield mask
    yield overlay_path(mask)
    for suffix in PROBABILITY_SUFFIXES:
        yield probability_path(mask, suffix)
        for kind in UNCERTAINTY_KINDS:
            yield uncertainty_path(mask, kind, suffix)


def _refuse_input_folders(plan: Sequence[OutputPath], out: Path) -> None:
    """Refuse results beside input images, where they could replace what is not ours.

    Not only the inputs themselves: the result of `a.jpg` must not replace an `a.png` beside it
    that nobody asked to segment.
    """
    folders = {item.source.resolve().parent for item in plan}
    folders |= {item.source.parent.resolve() for item in plan}  # where the input is a link
    folders |= {item.source.resolve() for item in plan if item.source.is_dir()}  # slices of DICOM
    for item in plan:
        target = (out / item.relative).resolve()
        if target.parent in folders:
            raise UsageError(
                f"{item.source}: its result would be {out / item.relative}, among the input "
                "images; give another folder as --out"
            )
