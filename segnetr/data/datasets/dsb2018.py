"""Nuclei of the Data Science Bowl 2018 (BBBC038): one mask file for each nucleus.

`stage1_train/<id>/images/<id>.png` with `stage1_train/<id>/masks/*.png`. The masks of an image are
united into one class; where two nuclei touch, the border between them is not kept.

Source:
    Caicedo et al., Nucleus segmentation across imaging experiments, Nat. Methods 16:1247 (2019).
"""

from pathlib import Path

from segnetr.data.case import Case
from segnetr.data.datasets.folder.patterns import PathPatterns, read_patterns
from segnetr.data.datasets.root import find_dataset_root
from segnetr.errors import UsageError

DSB2018_SOURCE = "https://bbbc.broadinstitute.org/BBBC038"
DSB2018_LICENSE = "CC0 1.0"
DSB2018_SIZE = "670 images, about 80 MB"

_PATTERNS = PathPatterns(
    images="stage1_train/{id}/images/{id}.*", masks="stage1_train/{id}/masks/*.*"
)
_EXPECTED = f"stage1_train ({DSB2018_SOURCE}, {DSB2018_SIZE}, license: {DSB2018_LICENSE})"


def read_dsb2018(root: Path) -> list[Case]:
    """Read the training images of stage 1; those of the test have no masks and are not read.

    Args:
        root: The folder that holds `stage1_train`, or the one above it.

    Raises:
        UsageError: If the folder is not there or holds no image.
    """
    home = find_dataset_root(
        root,
        holds=lambda folder: (folder / "stage1_train").is_dir(),
        title="DSB 2018",
        expected=_EXPECTED,
    )
    cases = read_patterns(home, _PATTERNS)
    if not cases:
        raise UsageError(
            f"{home}: stage1_train holds no <id>/images/<id>.png; expected {_EXPECTED}"
        )
    return cases
