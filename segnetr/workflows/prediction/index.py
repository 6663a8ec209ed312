"""`predictions.json`: the outcome of each input and the model that made it, and its table."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.shards import Shard
from segnetr.errors import UsageError
from segnetr.outputs.models.model_file import WEIGHTS_NAME, ModelCard, find_model_folder
from segnetr.outputs.tables.predictions import write_predictions_table
from segnetr.storage.disk_errors import as_write_error
from segnetr.storage.manifest import hash_file, write_json
from segnetr.workflows.prediction.ensemble import Ensemble, expand_folds

INDEX_NAME = "predictions.json"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictIndex:
    """The index of one process. Other shards have their own.

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

    def read_existing(self) -> dict[str, Record]:
        """Return the records of an earlier run by mask, for results that are kept.

        Raises:
            UsageError: If they belong to another model or other settings, whose masks would be
                mixed with new ones.
        """
        existing: dict[str, Record] = {}
        for path in (self.out / INDEX_NAME, self.path):
            content = _read_index(path)
            found = content.get("model", self.model)
            if any(found.get(key) != self.model[key] for key in ("sha256", "settings")):
                raise UsageError(
                    f"{path}: its masks were made by another model or with other settings; use "
                    "another --out, or omit --skip-existing to replace them"
                )
            existing |= {str(record["mask"]): record for record in content.get("done", [])}
        return existing

    def write(self, done: Sequence[Record], failed: Sequence[Record]) -> None:
        """Write index and table. Once all shards are finished, write the merged ones as well.

        Raises:
            WriteError: If it cannot be written.
        """
        with as_write_error(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
        write_json(
            self.path, {"model": dict(self.model), "done": list(done), "failed": list(failed)}
        )
        write_predictions_table(self.path.with_suffix(".csv"), done)
        if self.shard.count > 1:
            self._merge()

    def _merge(self) -> None:
        """Write the merged index, and repeat if another process wrote its own in the meantime."""
        written: list[dict[str, Any]] = []
        while (shards := self._read_shards()) != written:
            hashes = {shard.get("model", {}).get("sha256") for shard in shards}
            if hashes != {self.model["sha256"]}:
                return
            merged = {
                key: sorted((entry for shard in shards for entry in shard[key]), key=_by_input)
                for key in ("done", "failed")
            }
            path = self.out / INDEX_NAME
            write_json(path, {"model": dict(self.model), **merged})
            write_predictions_table(path.with_suffix(".csv"), merged["done"])
            written = shards

    def _read_shards(self) -> list[dict[str, Any]]:
        count = self.shard.count
        return [
            _read_index(self.out / name_index(Shard(number=number, count=count)))
            for number in range(1, count + 1)
        ]


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


def _by_input(record: Record) -> str:
    return str(record["input"])


def _read_index(path: Path) -> dict[str, Any]:
    """Read an index. Return {} if the file is missing or not an index: it is rewritten anyway."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    is_index = isinstance(content, dict) and all(
        isinstance(content.get(key), kind)
        for key, kind in (("model", dict), ("done", list), ("failed", list))
    )
    return content if is_index else {}
