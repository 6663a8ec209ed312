"""Choose the path of each result before the first file is written.

Two inputs may map to one name in the output folder: `a.png` and `a.jpg`, `a.png` from two folders,
or `a.png` whose probabilities have the name of the mask of `a_prob.png`. All names are chosen up
front, so no result overwrites another result or an input.
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
    """The path of one result.

    Attributes:
        source: The input file.
        relative: The mask's path below the output folder.
    """

    source: Path
    relative: Path


def plan_output_paths(
    inputs: Sequence[tuple[Path, Path]], *, out: Path, format_name: str = "same"
) -> list[OutputPath]:
    """Choose a unique name in the output folder for each input.

    A result has the sub-folder, stem and format of its input (`a.nii.gz` remains `a.nii.gz`,
    `a.jpg` becomes `a.png`). If several inputs map to one name, the input that already has this
    name gets it; the names of the others are extended by the suffix of their input (`a_jpg.png`),
    then by its folder (`left_a_jpg.png`), then by a number. The names do not depend on the order
    of the inputs. They are compared without letter case, as on many file systems.

    Args:
        inputs: Input files, each with its path relative to the folder in which it was found.
        out: The output folder.
        format_name: One of `segnetr.outputs.masks.format.MASK_FORMATS`.

    Returns:
        The paths, in the order of the inputs.

    Raises:
        UsageError: If a result would be in a folder of inputs, a relative path leads out of the
            output folder, or an input cannot have a mask of this format.
    """
    check_format(format_name)
    for source, relative in inputs:
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise UsageError(f"{source}: its path below --out would be '{relative}', outside it")
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
    paths = [
        OutputPath(source=source, relative=name)
        for (source, _), name in zip(inputs, names, strict=True)
    ]
    _reject_input_folders(paths, out)
    return paths


def split_suffix(name: str) -> tuple[str, str]:
    """Split a file name into stem and suffix. `.nii.gz` is one suffix; letter case is unchanged."""
    for suffix in _NIFTI_SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)], name[-len(suffix) :]
    path = PurePath(name)
    return path.stem, path.suffix


def is_nifti_name(path: PurePath) -> bool:
    """Return whether a file name is that of a NIfTI file."""
    return path.name.lower().endswith(_NIFTI_SUFFIXES)


def overlay_path(mask: Path) -> Path:
    """Return the path of the overlay image of a mask."""
    return mask.with_name(f"{split_suffix(mask.name)[0]}_overlay.png")


def probability_path(mask: Path, suffix: str) -> Path:
    """Return the path of the probabilities of a mask."""
    return mask.with_name(f"{split_suffix(mask.name)[0]}_prob{suffix}")


def uncertainty_path(mask: Path, kind: str, suffix: str) -> Path:
    """Return the path of an uncertainty map of a mask; `kind` is one of `UNCERTAINTY_KINDS`."""
    return mask.with_name(f"{split_suffix(mask.name)[0]}_{kind}{suffix}")


def has_results(
    mask: Path, *, overlay: bool, save_prob: bool, save_uncertainty: bool = False
) -> bool:
    """Return whether all requested results of one input exist.

    Args:
        mask: Its mask.
        overlay: Whether an overlay image is requested.
        save_prob: Whether probabilities are requested.
        save_uncertainty: Whether uncertainty maps are requested. Only the entropy is checked,
            since it is written last.
    """
    if not mask.is_file() or (overlay and not overlay_path(mask).is_file()):
        return False
    wanted = []
    if save_prob:
        wanted.append([probability_path(mask, suffix) for suffix in PROBABILITY_SUFFIXES])
    if save_uncertainty:
        wanted.append([uncertainty_path(mask, "entropy", end) for end in PROBABILITY_SUFFIXES])
    return all(any(path.is_file() for path in paths) for paths in wanted)


def _name_at(source: Path, relative: Path, *, level: int, format_name: str) -> Path:
    """Return the path of a mask: level 0 plain, 1 with suffix, 2 with folder, 3 with number."""
    stem, suffix = split_suffix(relative.name)
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
    """Return the inputs that need another name because theirs is not unique."""
    claims: dict[str, set[int]] = defaultdict(set)
    for index, name in enumerate(names):
        for path in _owned(name):
            claims[path.as_posix().casefold()].add(index)
    losers: set[int] = set()
    for claimants in claims.values():
        if len(claimants) > 1:
            losers |= claimants - _find_owner(claimants, inputs, names, levels)
    return losers


def _find_owner(
    claimants: set[int],
    inputs: Sequence[tuple[Path, Path]],
    names: Sequence[Path],
    levels: Sequence[int],
) -> set[int]:
    """Return the input that gets the name; none while all can still get a better name."""
    unchanged = {index for index in claimants if names[index] == inputs[index][1]}
    if len(unchanged) == 1:
        return unchanged
    # Inputs with the same number would get the same next number: the first one gets the name.
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


def _reject_input_folders(paths: Sequence[OutputPath], out: Path) -> None:
    """Reject results in folders of inputs, where they could replace files of the user.

    This includes files that are not inputs: the result of `a.jpg` must not replace an `a.png` in
    its folder.
    """
    folders = {item.source.resolve().parent for item in paths}
    folders |= {item.source.parent.resolve() for item in paths}  # if the input is a link
    folders |= {item.source.resolve() for item in paths if item.source.is_dir()}  # slices of DICOM
    for item in paths:
        target = (out / item.relative).resolve()
        if target.parent in folders:
            raise UsageError(
                f"{item.source}: its result would be {out / item.relative}, among the input "
                "images; choose another folder with --out"
            )
