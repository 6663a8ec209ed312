"""MedMNIST files: `<name>.npz` with images and labels of the three official parts.

Gray (N, H, W) and color (N, H, W, 3), of any of the published sizes; labels (N, 1) of two or more
classes, or (N, K) of 0 and 1 where a image has any number of them.

Source:
    Yang et al., MedMNIST v2, Scientific Data 10:41, 2023; class names as in the package medmnist 3.
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
_MOST_BYTES = 32 << 30
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

_Part = tuple[NDArray[np.uint8], NDArray[np.integer]]


def read_medmnist(
    root: Path, *, subset: str | None = None, class_names: tuple[str, ...] = ()
) -> ClassificationSet:
    """Read a file of MedMNIST's layout.

    Args:
        root: The file, or a folder that holds it.
        subset: Name of the file without `.npz`; None: the only one in the folder.
        class_names: Names of the classes; where none are given, the published ones.

    Raises:
        UsageError: If there is no such file, or there are several and none was named.
        ReadError: If the file is torn, holds pickled objects, or is of another layout.
    """
    path = _find_file(root, subset)
    parts = _read_parts(path)
    labels = np.concatenate([part[1] for part in parts.values()])
    kind: LabelKind = "single" if labels.shape[1] == 1 else "multi"
    names = _name_classes(path, labels, class_names)
    cases = []
    for part in SPLIT_NAMES:
        images, rows = parts[part]
        for number, (image, row) in enumerate(zip(images, rows, strict=True)):
            held = tuple(np.flatnonzero(row).tolist()) if kind == "multi" else (int(row[0]),)
            cases.append(
                ClassificationCase(
                    case_id=f"{part}-{number:06}", image=image, labels=held, split=part
                )
            )
    return ClassificationSet(
        name="medmnist",
        title=f"MedMNIST file {path.name}",
        classes=names,
        kind=kind,
        in_channels=parts["train"][0].shape[3],
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
    there = ", ".join(path.stem for path in sorted(root.glob("*.npz"))) if root.is_dir() else ""
    if subset is None and there:
        raise UsageError(f"{root}: holds several files; choose --set data.subset= {there}")
    wanted = f"{subset or 'NAME'}.npz"
    raise UsageError(f"{root}: no {wanted} in it{f' but {there}' if there else ''}; see {_SOURCE}")


def _read_parts(path: Path) -> dict[str, _Part]:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > _MOST_BYTES:
            raise ReadError(path, f"unpacks to {size} bytes, more than {_MOST_BYTES}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except OSError as error:
        raise ReadError(path, describe_os_error(error)) from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        detail = " ".join(str(error).split())[:120]
        if "allow_pickle" in detail:
            detail = "it holds pickled objects, which are refused and were not run"
        raise ReadError(path, f"torn or no .npz file ({detail})") from error
    return {part: _check_part(path, arrays, key) for part, key in _KEYS.items()}


def _check_part(path: Path, arrays: dict[str, NDArray[np.generic]], key: str) -> _Part:
    missing = [name for name in (f"{key}_images", f"{key}_labels") if name not in arrays]
    if missing:
        raise ReadError(path, f"no array {missing[0]!r}; this is no MedMNIST file")
    images, labels = arrays[f"{key}_images"], arrays[f"{key}_labels"]
    if images.dtype != np.uint8 or not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    ):
        raise ReadError(
            path,
            f"{key}_images is {images.dtype} {images.shape}; read are uint8 (N, H, W) and "
            "(N, H, W, 3), not volumes",
        )
    labels = labels[:, None] if labels.ndim == 1 else labels
    if labels.dtype.kind not in "iu" or labels.ndim != 2 or len(labels) != len(images):
        raise ReadError(path, f"{key}_labels is {labels.dtype} {labels.shape} for {len(images)}")
    return images if images.ndim == 4 else images[..., None], labels  # type: ignore[return-value]


def _name_classes(
    path: Path, labels: NDArray[np.integer], class_names: tuple[str, ...]
) -> tuple[str, ...]:
    """Give class names, and refuse labels that are none of them."""
    several = labels.shape[1] > 1
    count = labels.shape[1] if several else int(labels.max(initial=0)) + 1
    published = _CLASSES.get(path.stem.partition("_")[0], ())
    names = class_names or published or tuple(f"class {index}" for index in range(count))
    most = 1 if several else len(names) - 1
    wrong = labels[(labels < 0) | (labels > most)]
    if wrong.size:
        raise ReadError(path, f"holds the label {int(wrong[0])}, where 0 to {most} are allowed")
    if several and len(names) != count:
        raise ReadError(path, f"has {count} labels a image for {len(names)} class names")
    return names
