"""Hashes of the images of a classification dataset, to detect changed or reused data."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from segnetr.data.cache.arrays import CachedArray
from segnetr.data.case import SPLIT_NAMES, Split
from segnetr.data.classification.case import ClassificationCase, ImageSource
from segnetr.data.splits.content import CaseContent
from segnetr.errors import ReadError


def hash_images(cases: Sequence[ClassificationCase], split: Split | None = None) -> CaseContent:
    """Return the hashes of the images of a split; None: of all cases.

    The hash of an image that is one of many in a file is that of its values.

    Raises:
        ReadError: If a file cannot be read.
    """
    ids = None
    if split is not None:
        ids = {case_id for name in SPLIT_NAMES for case_id in split.ids(name)}
    return CaseContent(
        {case.case_id: (_hash(case.image),) for case in cases if ids is None or case.case_id in ids}
    )


def _hash(image: ImageSource) -> str:
    if isinstance(image, CachedArray):
        return image.source.hashes[0]
    if not isinstance(image, Path):
        values = np.ascontiguousarray(image)
        return hashlib.sha256(f"{values.shape} {values.dtype} ".encode() + values.data).hexdigest()
    try:
        with image.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ReadError(image, f"cannot be read ({error.strerror or error})") from error
