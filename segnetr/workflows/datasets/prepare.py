"""Implement `segnetr data prepare`: install official archives in a data folder, and check them."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from segnetr.config.load import list_recipes, load_config
from segnetr.config.schema.classification import ClassificationDataConfig
from segnetr.data.classification.open import open_classification_set
from segnetr.data.datasets.registry import get_dataset
from segnetr.data.download.download import DownloadRules, download
from segnetr.data.download.ingest import Ingest, find_known, list_sources, take_source
from segnetr.data.download.safe_names import ArchiveLimits
from segnetr.data.download.sources import OFFICIAL, Archive, OfficialSource, has_hash
from segnetr.data.download.transaction import InstalledArchive, open_transaction, read_record
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.datasets.check import CheckOutcome, check_dataset

LABELED = ("cifar10", "cifar100", "medmnist")
"""Classification datasets with official archives."""

_DOWNLOADS = ".segnetr-downloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """The options of one run.

    Attributes:
        dataset: Name of the dataset.
        data_dir: The data folder.
        sources: Archives, folders with archives, or extracted folders. They are only read.
        fetches: Download missing archives from the official addresses.
        subset: Name of the subset, for datasets with subsets.
        accepts_license: The user accepts the license.
        keeps_archives: Keep downloaded archives after extraction.
        workers: Number of processes of the check.
        limits: Limits for one source.
        rules: Limits for downloads.
    """

    dataset: str
    data_dir: Path
    sources: tuple[Path, ...] = ()
    fetches: bool = False
    subset: str | None = None
    accepts_license: bool = False
    keeps_archives: bool = False
    workers: int | None = None
    limits: ArchiveLimits = field(default_factory=ArchiveLimits)
    rules: DownloadRules = field(default_factory=DownloadRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOutcome:
    """The result of one run.

    Attributes:
        dataset: Name of the dataset.
        data_dir: The data folder.
        prepared: Archives installed by this run.
        known: Archives installed by earlier runs.
        checks: Results of the check of new files.
    """

    dataset: str
    data_dir: Path
    prepared: tuple[InstalledArchive, ...]
    known: tuple[InstalledArchive, ...]
    checks: tuple[CheckOutcome, ...]

    @property
    def issues(self) -> int:
        """The number of issues found by the check."""
        return sum(len(check.issues) for check in self.checks)

    def to_dict(self) -> Mapping[str, Any]:
        """Return the result as plain data."""
        return {
            "dataset": self.dataset,
            "data_dir": str(self.data_dir),
            "prepared": [asdict(item) for item in self.prepared],
            "known": [asdict(item) for item in self.known],
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        """Return one line per source, then the results of the check."""
        lines = [f"{item.name}: {_describe(item)}" for item in self.prepared]
        lines += [f"{item.name}: already installed" for item in self.known]
        lines += [str(check) for check in self.checks]
        if not self.prepared:
            lines.append(f"{self.data_dir} is unchanged; `segnetr data check` checks it again")
        return "\n".join(lines)


def prepare_dataset(
    request: PrepareRequest, *, confirm: Callable[[str], bool], progress: Progress
) -> PrepareOutcome:
    """Verify, extract and install archives, all of them or none, then check the dataset.

    Args:
        request: The options.
        confirm: Asks whether the license is accepted, if the request does not accept it.
        progress: Shows progress.

    Raises:
        UsageError: If there is no source, a name is unknown, the license is not accepted, or files
            exist already.
        ArchiveError: If an archive is damaged, differs from the official one, or is hostile.
        DownloadError: If a download fails.
        WriteError: If the disk is full, or a folder cannot be written.
    """
    official = find_official_source(request.dataset)
    archives = official.choose(request.subset) if request.fetches else official.archives
    sources = list_sources(request.sources, official.archives)
    _refuse_useless(request, official, sources)
    wanted = [archive for archive in archives if request.fetches]
    record = read_record(request.data_dir)
    todo, known, missing = _compare(sources, wanted, record, limits=request.limits)
    prepared: list[InstalledArchive] = []
    if todo or missing:
        if missing:
            _require_license(request, official, missing, confirm)
        with open_transaction(request.data_dir) as transaction:
            # Opening the transaction may have completed a killed run.
            record = read_record(request.data_dir)
            todo, known, missing = _compare(sources, wanted, record, limits=request.limits)
            ingest = Ingest(
                dataset=request.dataset,
                archives=official.archives,
                limits=request.limits,
                task=lambda name, size: _task(progress, name, size),
            )
            todo += _fetch(missing, request, progress)
            prepared = [take_source(source, transaction, ingest) for source in todo]
            transaction.commit(prepared)
        _drop_downloads(request)
    return PrepareOutcome(
        dataset=request.dataset,
        data_dir=request.data_dir,
        prepared=tuple(prepared),
        known=tuple(known),
        checks=tuple(_check(request, official, prepared, progress)),
    )


def find_official_source(name: str) -> OfficialSource:
    """Return the official archives of a dataset, or an entry without archives.

    Raises:
        UsageError: If the dataset is unknown or needs no archive.
    """
    if name in LABELED:
        return OFFICIAL[name]
    spec = get_dataset(name)
    if spec.prepare is not None:
        raise UsageError(f"{name}: is generated by this program; nothing to prepare")
    unknown = OfficialSource(title=spec.title, page=spec.source, license=spec.license, archives=())
    return OFFICIAL.get(name, unknown)


def _refuse_useless(
    request: PrepareRequest, official: OfficialSource, sources: Sequence[Path]
) -> None:
    if request.fetches and not (official.archives and official.is_public):
        raise UsageError(
            f"{official.title} has no public address; get it from {official.page} (license: "
            f"{official.license}) and give it as --source"
        )
    if not sources and not request.fetches:
        way = "--source ARCHIVE or DIR"
        if official.archives and official.is_public:
            way += f", or --download ({official.size or 'size not known'}; {official.license})"
        raise UsageError(f"nothing to prepare {request.dataset} from; give {way}")
    target = request.data_dir.resolve()
    for source in sources:
        folder = source.resolve()
        if source.is_dir() and _overlap(folder, target):
            raise UsageError(
                f"--source {source} and --data-dir {request.data_dir} overlap; choose "
                "another --data-dir, or check it in place: segnetr data check"
            )


def _overlap(first: Path, second: Path) -> bool:
    """Return whether two resolved folders are equal or one contains the other."""
    return first == second or first in second.parents or second in first.parents


def _compare(
    sources: Sequence[Path],
    wanted: Sequence[Archive],
    record: Sequence[InstalledArchive],
    *,
    limits: ArchiveLimits,
) -> tuple[list[Path], list[InstalledArchive], list[Archive]]:
    """Return the sources to install, the installed ones, and the archives to download."""
    todo, known = [], []
    for source in sources:
        found = find_known(source, record, limits=limits)
        if found is None:
            todo.append(source)
        else:
            known.append(found)
    installed = {item.name: item for item in record}
    local = {path.name for path in sources}
    known += [
        installed[item.name] for item in wanted if item.name in installed and item.name not in local
    ]
    present = local.union(installed)
    missing = [item for item in wanted if item.name not in present]
    return todo, known, missing


def _require_license(
    request: PrepareRequest,
    official: OfficialSource,
    missing: Sequence[Archive],
    confirm: Callable[[str], bool],
) -> None:
    files = f"{len(missing)} file{'s' if len(missing) > 1 else ''}"
    terms = (
        f"{official.title}: {files}, {official.size or 'size not known'}; "
        f"license: {official.license}; {official.page}"
    )
    if not request.accepts_license and not confirm(terms):
        raise UsageError(f"not fetched: {terms}; read it, and add --accept-license if you agree")


def _fetch(missing: Sequence[Archive], request: PrepareRequest, progress: Progress) -> list[Path]:
    folder = request.data_dir / _DOWNLOADS
    files = []
    for archive in missing:
        if not has_hash(archive):
            progress.on_message(f"{archive.name}: no hash was published, so it cannot be verified")
        with _task(progress, f"fetch {archive.name}", archive.size or 0) as report:
            files.append(download(archive, folder, rules=request.rules, report=report))
    return files


def _drop_downloads(request: PrepareRequest) -> None:
    folder = request.data_dir / _DOWNLOADS
    if not request.keeps_archives:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _task(progress: Progress, name: str, size: int) -> Iterator[Callable[[int, int], None]]:
    with progress.task(f"{name}, MiB", size >> 20) as advance:
        yield lambda done, total: advance(done >> 20, max(1, total >> 20))


def _check(
    request: PrepareRequest,
    official: OfficialSource,
    prepared: Sequence[InstalledArchive],
    progress: Progress,
) -> Iterator[CheckOutcome]:
    """Check the installed dataset, or each installed subset."""
    if not prepared:
        return
    entries = [entry for item in prepared for entry in item.entries]
    for entry in entries if official.subsets else [""]:
        try:
            if request.dataset in LABELED:
                yield _check_classification(request, request.data_dir / entry)
            else:
                yield _check_segmented(request, request.data_dir / entry, progress)
        except UsageError as error:  # for example, an archive is still missing
            names = ", ".join(item.name for item in prepared)
            raise UsageError(f"{names} extracted into {request.data_dir}, but {error}") from error


def _check_segmented(request: PrepareRequest, root: Path, progress: Progress) -> CheckOutcome:
    flags = {
        "data.dataset": request.dataset,
        "data.data_dir": root,
        "data.workers": request.workers,
    }
    recipes = [f"dataset/{name}" for name in list_recipes("dataset") if name == request.dataset]
    settings = load_config(recipes, flags=flags)
    return check_dataset(settings.data, progress=progress)


def _check_classification(request: PrepareRequest, root: Path) -> CheckOutcome:
    name = cast(Literal["cifar10", "cifar100", "medmnist"], request.dataset)
    opened = open_classification_set(ClassificationDataConfig(dataset=name, data_dir=root))
    return CheckOutcome(
        dataset=name, root=root, cases=len(opened.cases), issues=tuple(opened.issues)
    )


def _describe(item: InstalledArchive) -> str:
    check = "hash as published" if item.is_official else "no published hash to compare with"
    return f"{item.files} files, {check}, sha256 {item.sha256}"
