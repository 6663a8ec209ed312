"""Addresses and published hashes of the official archives.

All hashes were published by others: sha256 of ISIC 2018, ACDC, the hippocampus task and BUSI by the
package torch-em; MD5 of the Decathlon by MONAI, of MedMNIST by its package (version 3), of CIFAR by
torchvision, of ISIC 2017 by several public download scripts that agree. Sizes are listed if they
were published.

Sources:
    Facts page of this project; github.com/constantinpape/torch-em, Project-MONAI/MONAI,
    MedMNIST/MedMNIST, pytorch/vision.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO

from segnetr.errors import ArchiveError, ReadError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """An official file.

    Attributes:
        name: File name.
        address: Public address, or empty.
        folder: Top folder of the extracted archive. It is added if the archive lacks it.
        size: Size in bytes, or None if unknown.
        sha256: Hash in hexadecimal, or None.
        md5: Hash in hexadecimal, or None.
        is_packed: Whether it is extracted. Arrays of images and tables are not.
        subset: Name of the subset, if the dataset has several.
    """

    name: str
    address: str = ""
    folder: str = ""
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    is_packed: bool = True
    subset: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialSource:
    """The archives of one dataset.

    Attributes:
        title: Displayed name.
        page: Web page of the dataset.
        license: License of the data, as far as known.
        size: Displayed size of all archives, or empty.
        archives: The files.
    """

    title: str
    page: str
    license: str
    size: str = ""
    archives: tuple[Archive, ...]

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the subsets in order. Empty if there are none."""
        return tuple(dict.fromkeys(item.subset for item in self.archives if item.subset))

    @property
    def is_public(self) -> bool:
        """Whether every archive has a public address."""
        return all(archive.address for archive in self.archives)

    def choose(self, subset: str | None) -> tuple[Archive, ...]:
        """Return the archives of a subset, or all archives if there are no subsets.

        Raises:
            UsageError: If the subset is missing or unknown. The message lists the subsets.
        """
        if not self.subsets:
            if subset is not None:
                raise UsageError(f"--subset {subset}: {self.title} is one set, without subsets")
            return self.archives
        if subset is None:
            raise UsageError(f"--subset is missing: one of {', '.join(self.subsets)}")
        chosen = tuple(item for item in self.archives if item.subset == subset)
        if not chosen:
            raise UsageError(f"unknown --subset '{subset}'; there are {', '.join(self.subsets)}")
        return chosen


_ISIC = "https://isic-challenge-data.s3.amazonaws.com"
_ISIC_PAGE = "https://challenge.isic-archive.com/data/"
_DECATHLON = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
_ZENODO = "https://zenodo.org/records/10519652"
_CIFAR = "https://www.cs.toronto.edu/~kriz"


def _isic(year: int, name: str, *, sha256: str | None = None, md5: str | None = None) -> Archive:
    return Archive(
        name=f"{name}.zip",
        address=f"{_ISIC}/{year}/{name}.zip",
        folder=name,
        sha256=sha256,
        md5=md5,
    )


def _diagnoses(part: str) -> Archive:
    name = f"ISIC-2017_{part}_Part3_GroundTruth.csv"
    return Archive(name=name, address=f"{_ISIC}/2017/{name}", is_packed=False)


def _task(name: str, md5: str, *, sha256: str | None = None) -> Archive:
    return Archive(
        name=f"{name}.tar",
        address=f"{_DECATHLON}/{name}.tar",
        folder=name,
        sha256=sha256,
        md5=md5,
        subset=name,
    )


def _medmnist(name: str, md5: str) -> Archive:
    return Archive(
        name=f"{name}.npz",
        address=f"{_ZENODO}/files/{name}.npz",
        md5=md5,
        is_packed=False,
        subset=name,
    )


OFFICIAL: Mapping[str, OfficialSource] = MappingProxyType(
    {
        "isic2017": OfficialSource(
            title="ISIC 2017 (Part 1)",
            page=f"{_ISIC_PAGE}#2017",
            license="CC0 1.0, as a mirror states it; the official page decides",
            size="about 12 GB",
            archives=(
                _isic(2017, "ISIC-2017_Training_Data", md5="a14a7e622c67a358797ae59abb8a0b0c"),
                _isic(
                    2017,
                    "ISIC-2017_Training_Part1_GroundTruth",
                    md5="77fdbeb6fbec4139937224416b250f4c",
                ),
                _diagnoses("Training"),
                _isic(2017, "ISIC-2017_Validation_Data", md5="8d6419d942112f709894c0d82f6c9038"),
                _isic(
                    2017,
                    "ISIC-2017_Validation_Part1_GroundTruth",
                    md5="64d3e68fa2deeb8a5e89aa8dec2efd44",
                ),
                _diagnoses("Validation"),
                _isic(2017, "ISIC-2017_Test_v2_Data", md5="5f6a0b5e1f2972bd1f5ea02680489f09"),
                _isic(
                    2017,
                    "ISIC-2017_Test_v2_Part1_GroundTruth",
                    md5="b1742de6bd257faca3b2b21a4aa3b781",
                ),
                _diagnoses("Test_v2"),
            ),
        ),
        "isic2018": OfficialSource(
            title="ISIC 2018 (Task 1)",
            page=f"{_ISIC_PAGE}#2018",
            license="CC BY-NC 4.0, as a mirror states it; the official page and the archive's "
            "LICENSE decide",
            size="about 13 GB",
            archives=(
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Training_Input",
                    sha256="80f98572347a2d7a376227fa9eb2e4f7459d317cb619865b8b9910c81446675f",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Training_GroundTruth",
                    sha256="99f8b2bb3c4d6af483362010715f7e7d5d122d9f6c02cac0e0d15bef77c7604c",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Validation_Input",
                    sha256="0ea920fcfe512d12a6e620b50b50233c059f67b10146e1479c82be58ff15a797",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Validation_GroundTruth",
                    sha256="f6911e9c0a64e6d687dd3ca466ca927dd5e82145cb2163b7a1e5b37d7a716285",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1-2_Test_Input",
                    sha256="e59ae1f69f4ed16f09db2cb1d76c2a828487b63d28f6ab85997f5616869b127d",
                ),
                _isic(
                    2018,
                    "ISIC2018_Task1_Test_GroundTruth",
                    sha256="2e8f6edce454a5bdee52485e39f92bd6eddf357e81f39018d05512175238ef82",
                ),
            ),
        ),
        "acdc": OfficialSource(
            title="ACDC",
            page="https://humanheart-project.creatis.insa-lyon.fr/database/"
            "#collection/637218c173e9f0047faa00fb",
            license="CC BY-NC-SA 4.0, as a mirror states it; the official page decides",
            archives=(
                Archive(
                    name="ACDC.zip",
                    address="https://humanheart-project.creatis.insa-lyon.fr/database/api/v1/"
                    "collection/637218c173e9f0047faa00fb/download",
                    folder="ACDC",
                    sha256="2787e08b0d3525cbac710fc3bdf69ee7c5fd7446472e49db8bc78548802f6b5e",
                ),
            ),
        ),
        "decathlon": OfficialSource(
            title="Medical Segmentation Decathlon",
            page="http://medicaldecathlon.com",
            license="CC BY-SA 4.0",
            archives=(
                _task("Task01_BrainTumour", "240a19d752f0d9e9101544901065d872"),
                _task("Task02_Heart", "06ee59366e1e5124267b774dbd654057"),
                _task("Task03_Liver", "a90ec6c4aa7f6a3d087205e23d4e6397"),
                _task(
                    "Task04_Hippocampus",
                    "9d24dba78a72977dbd1d2e110310f31b",
                    sha256="282d808a3e84e5a52f090d9dd4c0b0057b94a6bd51ad41569aef5ff303287771",
                ),
                _task("Task05_Prostate", "35138f08b1efaef89d7424d2bcc928db"),
                _task("Task06_Lung", "8afd997733c7fc0432f71255ba4e52dc"),
                _task("Task07_Pancreas", "4f7080cfca169fa8066d17ce6eb061e4"),
                _task("Task08_HepaticVessel", "641d79e80ec66453921d997fbf12a29c"),
                _task("Task09_Spleen", "410d4a301da4e5b2f6f86ec3ddba524e"),
                _task("Task10_Colon", "bad7a188931dc2f6acf72b08eb6202d0"),
            ),
        ),
        "ph2": OfficialSource(
            title="PH2",
            page="https://www.fc.up.pt/addi/ph2%20database.html",
            license="research and education only; may not be passed on or used commercially",
            archives=(Archive(name="PH2Dataset.rar", folder="PH2Dataset"),),
        ),
        "busi": OfficialSource(
            title="BUSI",
            page="https://scholar.cu.edu.eg/Dataset_BUSI.zip",
            license="CC0 1.0, as a mirror states it; the official page decides",
            archives=(
                Archive(
                    name="Dataset_BUSI.zip",
                    folder="Dataset_BUSI_with_GT",
                    sha256="b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
                ),
            ),
        ),
        "medmnist": OfficialSource(
            title="MedMNIST (28 x 28)",
            page=_ZENODO,
            license="CC BY 4.0 (dermamnist: CC BY-NC 4.0)",
            archives=(
                _medmnist("pathmnist", "a8b06965200029087d5bd730944a56c1"),
                _medmnist("chestmnist", "02c8a6516a18b556561a56cbdd36c4a8"),
                _medmnist("dermamnist", "0744692d530f8e62ec473284d019b0c7"),
                _medmnist("octmnist", "c68d92d5b585d8d81f7112f81e2d0842"),
                _medmnist("pneumoniamnist", "28209eda62fecd6e6a2d98b1501bb15f"),
                _medmnist("retinamnist", "bd4c0672f1bba3e3a89f0e4e876791e4"),
                _medmnist("breastmnist", "750601b1f35ba3300ea97c75c52ff8f6"),
                _medmnist("bloodmnist", "7053d0359d879ad8a5505303e11de1dc"),
                _medmnist("tissuemnist", "ebe78ee8b05294063de985d821c1c34b"),
                _medmnist("organamnist", "68e3f8846a6bd62f0c9bf841c0d9eacc"),
                _medmnist("organcmnist", "b9ceb9546e10131b32923c5bbeaea2b1"),
                _medmnist("organsmnist", "9ab87b696fb54e2a387ebe992d6ed5f1"),
            ),
        ),
        "cifar10": OfficialSource(
            title="CIFAR-10",
            page=f"{_CIFAR}/cifar.html",
            license="none stated by the authors",
            size="170 MB",
            archives=(
                Archive(
                    name="cifar-10-python.tar.gz",
                    address=f"{_CIFAR}/cifar-10-python.tar.gz",
                    folder="cifar-10-batches-py",
                    size=170_498_071,
                    md5="c58f30108f718f92721af3b95e74349a",
                ),
            ),
        ),
        "cifar100": OfficialSource(
            title="CIFAR-100",
            page=f"{_CIFAR}/cifar.html",
            license="none stated by the authors",
            size="169 MB",
            archives=(
                Archive(
                    name="cifar-100-python.tar.gz",
                    address=f"{_CIFAR}/cifar-100-python.tar.gz",
                    folder="cifar-100-python",
                    size=169_001_437,
                    md5="eb9058c3a382ffc7106e4002c42a8d85",
                ),
            ),
        ),
    }
)
"""Sources by the name of the dataset on the command line."""


_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """The size and hashes of a file.

    Attributes:
        size: Size in bytes.
        sha256: Hash in hexadecimal.
        md5: Hash in hexadecimal. Some archives have no other published hash. It detects damaged
            files, not forged ones.
    """

    size: int
    sha256: str
    md5: str


def digest_file(
    file: IO[bytes], path: Path, *, report: Callable[[int, int], None] | None = None
) -> Digest:
    """Compute the hashes of an open file.

    Args:
        file: The file.
        path: Its path, for messages.
        report: Called with the number of processed bytes and their total.

    Raises:
        ReadError: If it cannot be read.
    """
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    done = 0
    try:
        size = file.seek(0, 2)
        file.seek(0)
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            md5.update(chunk)
            done += len(chunk)
            if report is not None:
                report(done, max(done, size))
    except OSError as error:
        raise ReadError(path, f"cannot be read ({error.strerror or error})") from error
    return Digest(size=done, sha256=sha256.hexdigest(), md5=md5.hexdigest())


def find_official(name: str, digest: Digest, archives: Sequence[Archive]) -> Archive | None:
    """Return the official archive with the hash of a file, or the one with its name."""
    for archive in archives:
        if describe_mismatch(archive, digest) is None and has_hash(archive):
            return archive
    named = [archive for archive in archives if archive.name == name]
    return named[0] if named else None


def has_hash(archive: Archive) -> bool:
    """Return whether a hash of the archive was published."""
    return archive.sha256 is not None or archive.md5 is not None


def describe_mismatch(archive: Archive, digest: Digest) -> str | None:
    """Return how a file differs from the official archive, or None."""
    if archive.size is not None and archive.size != digest.size:
        return f"has {digest.size} bytes, the official {archive.name} has {archive.size}"
    if archive.sha256 is not None and archive.sha256 != digest.sha256:
        return f"has the sha256 {digest.sha256}, the official {archive.name} has {archive.sha256}"
    if archive.md5 is not None and archive.md5 != digest.md5:
        return f"has the MD5 {digest.md5}, the official {archive.name} has {archive.md5}"
    return None


def check_official(archive: Archive, digest: Digest, path: Path) -> bool:
    """Compare a file with the official archive.

    Returns:
        Whether a published hash verified it.

    Raises:
        ArchiveError: If the file differs.
    """
    difference = describe_mismatch(archive, digest)
    if difference is not None:
        raise ArchiveError(
            path, f"{difference}; fetch it again, or rename it if it is your own archive"
        )
    return has_hash(archive)
