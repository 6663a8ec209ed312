"""`segnetr data prepare`: from official archives to a folder that the readers read, and audited."""

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
from segnetr.data.download.safe_names import Limits
from segnetr.data.download.sources import OFFICIAL, Archive, OfficialSource, has_hash
from segnetr.data.download.transaction import InstalledArchive, open_transaction, read_record
from segnetr.errors import UsageError
from segnetr.progress import Progress
from segnetr.workflows.datasets.check import CheckOutcome, check_dataset

LABELED = ("cifar10", "cifar100", "medmnist")
"""Sets of labeled images that have official archives."""

_DOWNLOADS = ".segnetr-downloads"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareRequest:
    """What to prepare, from what, where to.

    Attributes:
        dataset: Name of a data set.
        data_dir: The folder that will hold it.
        sources: Archives, or folders that hold archives or were unpacked; only read.
        fetches: Fetch what the sources lack from the official addresses.
        subset: Which of several independent sets, for those that consist of such.
        accepts_license: The user has read the license and says yes.
        keeps_archives: Keep what was fetched after it was unpacked.
        workers: Processes of the audit.
        limits: How much may come out of one source.
        rules: How long to try to fetch.
    """

    dataset: str
    data_dir: Path
    sources: tuple[Path, ...] = ()
    fetches: bool = False
    subset: str | None = None
    accepts_license: bool = False
    keeps_archives: bool = False
    workers: int | None = None
    limits: Limits = field(default_factory=Limits)
    rules: DownloadRules = field(default_factory=DownloadRules)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareOutcome:
    """What was done.

    Attributes:
        dataset: The data set's name.
        data_dir: The folder that holds it.
        prepared: What was put in its place now.
        known: What an earlier run had put there.
        checks: The audit of what was put there now.
    """

    dataset: str
    data_dir: Path
    prepared: tuple[InstalledArchive, ...]
    known: tuple[InstalledArchive, ...]
    checks: tuple[CheckOutcome, ...]

    @property
    def issues(self) -> int:
        """The number of issues that the audit found."""
        return sum(len(check.issues) for check in self.checks)

    def to_dict(self) -> Mapping[str, Any]:
        """Give everything as plain data."""
        return {
            "dataset": self.dataset,
            "data_dir": str(self.data_dir),
            "prepared": [asdict(item) for item in self.prepared],
            "known": [asdict(item) for item in self.known],
            "checks": [check.to_dict() for check in self.checks],
        }

    def __str__(self) -> str:
        """Give a line for each source, then the audit."""
        lines = [f"{item.name}: {_describe(item)}" for item in self.prepared]
        lines += [f"{item.name}: was prepared before, nothing to do" for item in self.known]
        lines += [str(check) for check in self.checks]
        if not self.prepared:
            lines.append(f"{self.data_dir} is as it was; `segnetr data check` audits it again")
        return "\n".join(lines)


def prepare_dataset(
    request: PrepareRequest, *, confirm: Callable[[str], bool], progress: Progress
) -> PrepareOutcome:
    """Check, unpack and lay out archives, all of them or none, then audit what is there.

    Args:
        request: What to prepare.
        confirm: Asked whether a license is accepted, where the request does not say so.
        progress: What the user sees meanwhile.

    Raises:
        UsageError: If there is nothing to prepare from, a name is unknown, a license was not
            accepted, or files are in the way.
        ArchiveError: If an archive is torn, not the official one, or attacks.
        DownloadError: If a file could not be fetched.
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
            # A run that was killed may just have been completed.
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
    """Give what is known of a data set's archives; without archives where nothing is.

    Raises:
        UsageError: If there is no data set of that name, or it needs no archive.
    """
    if name in LABELED:
        return OFFICIAL[name]
    spec = get_dataset(name)
    if spec.prepare is not None:
        raise UsageError(f"{name}: is made by this program where it is missing; nothing to prepare")
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
    home = request.data_dir.resolve()
    for source in sources:
        here = source.resolve()
        if source.is_dir() and (here == home or here in home.parents or home in here.parents):
            raise UsageError(
                f"--source {source} and --data-dir {request.data_dir} lie in one another; choose "
                "another --data-dir, or audit it where it is: segnetr data check"
            )


def _compare(
    sources: Sequence[Path],
    wanted: Sequence[Archive],
    record: Sequence[InstalledArchive],
    *,
    limits: Limits,
) -> tuple[list[Path], list[InstalledArchive], list[Archive]]:
    """Give the sources to take, what was taken before, and the archives to fetch."""
    todo, known = [], []
    for source in sources:
        found = find_known(source, record, limits=limits)
        if found is None:
            todo.append(source)
        else:
            known.append(found)
    there = {item.name: item for item in record}
    given = {path.name for path in sources}
    known += [there[item.name] for item in wanted if item.name in there and item.name not in given]
    missing = [item for item in wanted if item.name not in there and item.name not in given]
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
            progress.on_message(f"{archive.name}: no hash was published, it cannot be proved")
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
    """Audit what was prepared: once, or each of several independent sets by itself."""
    if not prepared:
        return
    entries = [entry for item in prepared for entry in item.entries]
    for entry in entries if official.subsets else [""]:
        try:
            if request.dataset in LABELED:
                yield _check_classification(request, request.data_dir / entry)
            else:
                yield _check_segmented(request, request.data_dir / entry, progress)
        except UsageError as error:  # a part of the set is still missing, say
            names = ", ".join(item.name for item in prepared)
            raise UsageError(f"{names} unpacked into {request.data_dir}, but {error}") from error


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
    proof = "hash as published" if item.is_official else "no published hash to compare with"
    return f"{item.files} files, {proof}, sha256 {item.sha256}"
