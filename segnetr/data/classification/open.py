"""Open a classification dataset of any supported format."""

from pathlib import Path

from segnetr.config.schema.classification import ClassificationDataConfig
from segnetr.data.classification.case import ClassificationSet, check_classes
from segnetr.data.classification.cifar import CIFAR_10, CIFAR_100, read_cifar
from segnetr.data.classification.image_folder import read_image_folder
from segnetr.data.classification.label_table import read_label_table
from segnetr.data.classification.medmnist import read_medmnist
from segnetr.errors import UsageError

_EXPECTED = {
    "cifar10": "the folder that contains cifar-10-batches-py",
    "cifar100": "the folder that contains cifar-100-python",
    "imagefolder": "the folder that contains train, val and test, or the class folders",
    "medmnist": "a MedMNIST file, or the folder that contains it",
    "table": "the folder that contains a table of labels (.csv) and the images",
}


def open_classification_set(config: ClassificationDataConfig) -> ClassificationSet:
    """Read a classification dataset and check that it is usable for training.

    Raises:
        UsageError: If no folder was named, or it does not have the expected layout.
        ReadError: If a label file is damaged or contains code.
        DataError: If labels are out of range, a class is empty, or there is only one class.
    """
    root = config.data_dir
    if root is None:
        raise UsageError(f"--data-dir is missing: {_EXPECTED[config.dataset]}")
    if not root.exists():
        raise UsageError(f"--data-dir {root}: no such folder; name {_EXPECTED[config.dataset]}")
    opened = _read(config, root)
    check_classes(opened, root)
    return opened


def _read(config: ClassificationDataConfig, root: Path) -> ClassificationSet:
    if config.dataset == "cifar10":
        return read_cifar(root, layout=CIFAR_10)
    if config.dataset == "cifar100":
        return read_cifar(root, layout=CIFAR_100)
    if config.dataset == "medmnist":
        return read_medmnist(root, subset=config.subset, class_names=config.class_names)
    if config.dataset == "table":
        return read_label_table(root, config.table, in_channels=config.in_channels)
    return read_image_folder(root, in_channels=config.in_channels)
