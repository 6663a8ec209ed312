"""`predictions.json`: the outcome of each input and the model that made it, and its table."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.shards import Shard
from segnetr.outputs.models.model_file import WEIGHTS_NAME, ModelCard, find_model_folder
from segnetr.outputs.tables.predictions import write_predictions_table
from segnetr.progress import Progress
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.lock import lock_folder, reject_locked
from segnetr.storage.manifest import hash_file, write_json
from segnetr.workflows.prediction.ensemble import Ensemble, expand_folds
from segnetr.workflows.prediction.records import Record, Records, read_records

INDEX_NAME = "predictions.json"
_LOCK_NAME = ".predictions.lock"
_SHARD_LOCKS = ".predictions-*-of-*.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictIndex:
    """The index of a prediction folder. Later calls extend it. Shards have their own.

    Attributes:
        out: The output folder.
        shard: Share of the inputs that this process works on.
        model: Description of the model.
    """

    out: Path
    shard: Shard
    model: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file: `predictions.json`, or `predictions-2-of-8.json` of a shard."""
        return self.out / name_index(self.shard)

    def read_existing(self) -> Records:
        """Return the records of earlier calls.

        Raises:
            UsageError: If a file with the name of the index is something else.
        """
        existing = self._read(INDEX_NAME)
        return existing if self.shard.count == 1 else existing.extend(self._read(self.path.name))

    def write(self, done: Sequence[Record], failed: Sequence[Record]) -> None:
        """Add to index and table. Once all shards are finished, write the merged ones as well.

        Raises:
            UsageError: If a file with the name of the index is something else.
            WriteError: If it cannot be written.
        """
        with as_write_error(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        new = Records(model=self.model, done=tuple(done), failed=tuple(failed))
        _write(self.path, self._read(self.path.name).extend(new))
        if self.shard.count > 1:
            self._merge()

    def _merge(self) -> None:
        """Write the merged index, and repeat if another process wrote its own in the meantime."""
        written: list[Records | None] = []
        while (shards := self._read_shards()) != written:
            finished = [shard for shard in shards if shard is not None]
            hashes = {shard.model.get("sha256") for shard in finished}
            if len(finished) < len(shards) or hashes != {self.model["sha256"]}:
                return
            merged = self._read(INDEX_NAME)
            for shard in finished:
                merged = merged.extend(shard)
            _write(self.out / INDEX_NAME, merged.sort())
            written = shards

    def _read(self, name: str) -> Records:
        return read_records(self.out / name) or Records(model=self.model)

    def _read_shards(self) -> list[Records | None]:
        count = self.shard.count
        return [
            read_records(self.out / name_index(Shard(number=number, count=count)))
            for number in range(1, count + 1)
        ]


@contextlib.contextmanager
def lock_predictions(out: Path, shard: Shard, progress: Progress) -> Iterator[None]:
    """Keep other predictions out of a folder. Different shards do not exclude each other.

    Raises:
        UsageError: If another process writes to the folder. The message names host and process.
        WriteError: If the folder cannot be written.
    """
    is_whole = shard.count == 1
    name = _LOCK_NAME if is_whole else f".predictions-{shard.number}-of-{shard.count}.lock"
    with lock_folder(out, name=name, on_message=progress.on_message):
        for other in sorted(out.glob(_SHARD_LOCKS)) if is_whole else [out / _LOCK_NAME]:
            reject_locked(other)
        yield


def _write(path: Path, records: Records) -> None:
    write_json(path, records.to_dict())
    write_predictions_table(path.with_suffix(".csv"), records.done)


def name_index(shard: Shard) -> str:
    """Return the name of the index of a shard."""
    if shard.count == 1:
        return INDEX_NAME
    return f"predictions-{shard.number}-of-{shard.count}.json"


def describe_model(
    paths: Sequence[Path],
    card: ModelCard,
    ensemble: Ensemble,
    *,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Describe a model: its path, the hash of its weights, and its settings.

    The hash of an ensemble is that of the lines of its members' hashes and of the combination.

    Args:
        paths: The models, as the user named them.
        card: Card of the first model.
        ensemble: How several models are combined.
        settings: Settings that override their own `predict` section.
    """
    members = [
        {"path": str(path), "sha256": hash_file(find_model_folder(path) / WEIGHTS_NAME)}
        for path in expand_folds(paths)
    ]
    sha256 = members[0]["sha256"]
    if len(members) > 1:
        lines = [member["sha256"] for member in members]
        lines += [] if ensemble == "mean" else [ensemble]
        sha256 = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    described: dict[str, Any] = {
        "path": " ".join(map(str, paths)),
        "sha256": sha256,
        "classes": list(card.classes),
        "created_by": card.created_by,
        # As read back from a file, where tuples are lists.
        "settings": json.loads(json.dumps(dict(settings or {}))),
    }
    if len(members) > 1:
        described |= {"ensemble": ensemble, "members": members}
    return described
