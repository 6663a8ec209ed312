"""MedMNIST files: `<name>.npz` with images and labels of the three official splits.

Images are grayscale (N, H, W) or color (N, H, W, 3), of any published size. Labels are (N, 1) for
single-label files, and (N, K) of 0 and 1 for multi-label files.

Source:
    Yang et al., MedMNIST v2, Scientific Data 10:41, 2023. Class names as in the package medmnist 3.
"""

import zipfile
import zlib
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from segnetr.data.case import SPLIT_NAMES
from segnetr.data.classification.case import ClassificationCase, ClassificationSet, LabelKind
from segnetr.data.readers.image_file import describe_os_error
from segnetr.errors import ReadError, UsageError

_KEYS = MappingProxyType({"train": "train", "validation": "val", "test": "test"})
_MAX_BYTES = 32 << 30
_SOURCE = "https://zenodo.org/records/10519652"
_ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver",
    "lung-left", "lung-right", "pancreas", "spleen",
)  # fmt: skip
_CLASSES = MappingProxyType(
    {
        "pathmnist": (
            "adipose", "background", "debris", "lymphocytes", "mucus", "smooth muscle",
            "normal colon mucosa", "cancer-associated stroma",
            "colorectal adenocarcinoma epithelium",
        ),
        "chestmnist": (
            "atelectasis", "cardiomegaly", "effusion", "infiltration", "mass", "nodule",
            "pneumonia", "pneumothorax", "consolidation", "edema", "emphysema", "fibrosis",
            "pleural", "hernia",
        ),
        "dermamnist": (
            "actinic keratoses and intraepithelial carcinoma", "basal cell carcinoma",
            "benign keratosis-like lesions", "dermatofibroma", "melanoma", "melanocytic nevi",
            "vascular lesions",
        ),
        "octmnist": (
            "choroidal neovascularization", "diabetic macular edema", "drusen", "normal",
        ),
        "pneumoniamnist": ("normal", "pneumonia"),
        "breastmnist": ("malignant", "normal, benign"),
        "bloodmnist": (
            "basophil", "eosinophil", "erythroblast", "immature granulocytes", "lymphocyte",
            "monocyte", "neutrophil", "platelet",
        ),
        "organamnist": _ORGANS,
        "organcmnist": _ORGANS,
        "organsmnist": _ORGANS,
    }
)  # fmt: skip

_SplitArrays = tuple[NDArray[np.uint8], NDArray[np.integer]]


def read_medmnist(
    root: Path, *, subset: str | None = None, class_names: tuple[str, ...] = ()
) -> ClassificationSet:
    """Read a MedMNIST file.

    Args:
        root: The file, or a folder that contains it.
        subset: Name of the file without `.npz`. None: the only one in the folder.
        class_names: Names of the classes. Empty: the published ones.

    Raises:
        UsageError: If there is no such file, or there are several and none was named.
        ReadError: If the file is damaged, contains pickled objects, or has another layout.
    """
    path = _find_file(root, subset)
    arrays = _read_splits(path)
    labels = np.concatenate([split_labels for _, split_labels in arrays.values()])
    kind: LabelKind = "single" if labels.shape[1] == 1 else "multi"
    names = _name_classes(path, labels, class_names)
    cases = []
    for split in SPLIT_NAMES:
        images, rows = arrays[split]
        for number, (image, row) in enumerate(zip(images, rows, strict=True)):
            indices = tuple(np.flatnonzero(row).tolist()) if kind == "multi" else (int(row[0]),)
            cases.append(
                ClassificationCase(
                    case_id=f"{split}-{number:06}", image=image, labels=indices, split=split
                )
            )
    return ClassificationSet(
        name="medmnist",
        title=f"MedMNIST file {path.name}",
        classes=names,
        kind=kind,
        in_channels=arrays["train"][0].shape[3],
        cases=tuple(cases),
        source=_SOURCE,
        license="CC BY 4.0 (DermaMNIST: CC BY-NC 4.0), for the published files",
    )


def _find_file(root: Path, subset: str | None) -> Path:
    if root.is_file():
        return root
    files = sorted(root.glob("*.npz")) if root.is_dir() else []
    if subset is not None:
        files = [path for path in files if path.stem == subset]
    if len(files) == 1:
        return files[0]
    available = ", ".join(path.stem for path in sorted(root.glob("*.npz"))) if root.is_dir() else ""
    if subset is None and available:
        raise UsageError(
            f"{root}: contains several files; choose one with --set data.subset=NAME: {available}"
        )
    name = f"{subset or 'NAME'}.npz"
    others = f" (only {available})" if available else ""
    raise UsageError(f"{root}: contains no {name}{others}; see {_SOURCE}")


def _read_splits(path: Path) -> dict[str, _SplitArrays]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > _MAX_BYTES:
            raise ReadError(path, f"unpacks to {size} bytes, more than {_MAX_BYTES}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        detail = " ".join(str(error).split())[:120]
        if "allow_pickle" in detail:
            detail = "it contains pickled objects, which were refused and not executed"
        raise ReadError(path, f"damaged or not an .npz file ({detail})") from error
    return {split: _check_split(path, arrays, key) for split, key in _KEYS.items()}


def _check_split(path: Path, arrays: dict[str, NDArray[np.generic]], key: str) -> _SplitArrays:
    missing = [name for name in (f"{key}_images", f"{key}_labels") if name not in arrays]
    if missing:
        raise ReadError(path, f"no array {missing[0]!r}; this is not a MedMNIST file")
    images, labels = arrays[f"{key}_images"], arrays[f"{key}_labels"]
    if images.dtype != np.uint8 or not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    ):
        raise ReadError(
            path,
            f"{key}_images is {images.dtype} {images.shape}; expected uint8 (N, H, W) or "
            "(N, H, W, 3); volumes are not supported",
        )
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != len(images):
        raise ReadError(
            path, f"{key}_labels is {labels.dtype} {labels.shape} for {len(images)} images"
        )
    return images if images.ndim == 4 else images[..., None], labels  # type: ignore[return-value]


def _name_classes(
    path: Path, labels: NDArray[np.integer], class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the class names, and check that all labels are in range."""
    is_multi = labels.shape[1] > 1
    count = labels.shape[1] if is_multi else int(labels.max(initial=0)) + 1
    published = _CLASSES.get(path.stem.partition("_")[0], ())
    names = class_names or published or tuple(f"class {index}" for index in range(count))
    highest = 1 if is_multi else len(names) - 1
    wrong = labels[(labels < 0) | (labels > highest)]
    if wrong.size:
        raise ReadError(path, f"contains the label {int(wrong[0])}; expected 0 to {highest}")
    if is_multi and len(names) != count:
        raise ReadError(path, f"has {count} labels per image for {len(names)} class names")
    return names
