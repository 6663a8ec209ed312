"""Registry of all datasets, one line each.

To add a dataset, define `SPEC` in a new module of this package and add its line to `_SPECS`. A
recipe in `configs/dataset/` is optional. Importing this module imports no reader, so that listing
names is cheap.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from segnetr.errors import unknown_name

if TYPE_CHECKING:
    from segnetr.data.case import DatasetSpec

# Name on the command line -> module of this package : attribute.
_SPECS = {
    "isic2017": "isic:SPEC_2017",
    "isic2018": "isic:SPEC_2018",
    "ph2": "ph2:SPEC",
    "tnscui": "tnscui:SPEC_TNSCUI",
    "ddti": "tnscui:SPEC_DDTI",
    "busi": "busi:SPEC",
    "dsb2018": "dsb2018:SPEC",
    "folder": "folder.dataset:SPEC",
    "acdc": "acdc:SPEC",
    "decathlon": "decathlon:SPEC",
    "mni": "mni:SPEC",
    "synthetic": "synthetic.dataset:SPEC",
}

OLD_NAMES: Mapping[str, str] = MappingProxyType({"drawn": "synthetic"})
"""Names of version 0.1 that are still accepted, with their current names."""


class _Registry(Mapping[str, "DatasetSpec"]):
    """The descriptions by name. A reader is imported when its description is first used."""

    def __getitem__(self, name: str) -> "DatasetSpec":
        module, attribute = _SPECS[name].split(":")
        spec: DatasetSpec = getattr(import_module(f"{__package__}.{module}"), attribute)
        return spec

    def __iter__(self) -> Iterator[str]:
        return iter(_SPECS)

    def __len__(self) -> int:
        return len(_SPECS)


DATASETS: Mapping[str, "DatasetSpec"] = _Registry()


def find_dataset_name(name: str) -> str:
    """Return the current name of a dataset, which may be given by an old name.

    Raises:
        UsageError: If the name is unknown. The message suggests the nearest name.
    """
    current = OLD_NAMES.get(name, name)
    if current not in _SPECS:
        raise unknown_name("dataset", name, _SPECS, see="segnetr data list")
    return current


def get_dataset(name: str) -> "DatasetSpec":
    """Return the description of a dataset.

    Raises:
        UsageError: If the name is unknown. The message suggests the nearest name.
    """
    return DATASETS[find_dataset_name(name)]
