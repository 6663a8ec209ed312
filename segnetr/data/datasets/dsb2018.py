"""Nuclei of the Data Science Bowl 2018 (BBBC038), with one mask file per nucleus.

The layout is `stage1_train/<id>/images/<id>.png` and `stage1_train/<id>/masks/*.png`. The masks of
an image are merged into one class, so the border between touching nuclei is lost.

Source:
    Caicedo et al., Nucleus segmentation across imaging experiments, Nat. Methods 16:1247 (2019).
"""

from pathlib import Path

from segnetr.data.case import Case, DatasetSpec, find_dataset_root
from segnetr.data.datasets.folder.patterns import PathPatterns, read_patterns
from segnetr.errors import UsageError

_SOURCE = "https://bbbc.broadinstitute.org/BBBC038"
_LICENSE = "CC0 1.0"
_SIZE = "670 images, about 80 MB"

_PATTERNS = PathPatterns(
    images="stage1_train/{id}/images/{id}.*", masks="stage1_train/{id}/masks/*.*"
)
_EXPECTED = f"stage1_train ({_SOURCE}, {_SIZE}, license: {_LICENSE})"


def read_dsb2018(root: Path) -> list[Case]:
    """Read the training images of stage 1. The test images have no masks and are not read.

    Args:
        root: The folder that contains `stage1_train`, or its parent.

    Raises:
        UsageError: If the folder is missing or contains no image.
    """
    data_root = find_dataset_root(
        root,
        holds=lambda folder: (folder / "stage1_train").is_dir(),
        title="DSB 2018",
        expected=_EXPECTED,
    )
    cases = read_patterns(data_root, _PATTERNS)
    if not cases:
        raise UsageError(
            f"{data_root}: stage1_train contains no <id>/images/<id>.png; expected {_EXPECTED}"
        )
    return cases


SPEC = DatasetSpec(
    name="dsb2018",
    title="Data Science Bowl 2018, stage 1",
    read_cases=read_dsb2018,
    classes=("background", "nucleus"),
    in_channels=3,
    spatial_dims=2,
    counts={"train": 670},
    source=_SOURCE,
    license=_LICENSE,
    download_size=_SIZE,
)
