"""`predictions.json`: what became of each input, and by which model; and its table."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.config.shards import Shard
from segnetr.data.readers.image_file import DicomSeries, ImageFile
from segnetr.data.readers.nifti_stream import VolumeFile
from segnetr.errors import UsageError
from segnetr.outputs.models.model_file import WEIGHTS_NAME, ModelCard, find_model_folder
from segnetr.outputs.tables.predictions import write_predictions_table
from segnetr.storage.manifest import hash_file, write_json
from segnetr.workflows.prediction.ensemble import Ensemble, list_models

INDEX_NAME = "predictions.json"

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictIndex:
    """The index of one process, beside those of other shards.

    Attributes:
        out: The output folder.
        shard: Which part of the inputs is done here.
        model: What is said of the model.
    """

    out: Path
    shard: Shard
    model: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file: `predictions.json`, or `predictions-2-of-8.json` of a shard."""
        return self.out / name_index(self.shard)

    def read_kept(self) -> dict[str, Record]:
        """Read the records of an earlier run by mask, for results that are not made again.

        Raises:
            UsageError: If they are of another model or of other settings, whose masks would be
                mixed with ours.
        """
        kept: dict[str, Record] = {}
        for path in (self.out / INDEX_NAME, self.path):
            content = _read_index(path)
            found = content.get("model", self.model)
            if any(found.get(key) != self.model[key] for key in ("sha256", "settings")):
                raise UsageError(
                    f"{path}: its masks are of another model or of other settings; give another "
                    "--out, or leave --skip-existing away to replace them"
                )
            kept |= {str(record["mask"]): record for record in content.get("done", [])}
        return kept

    def write(self, done: Sequence[Record], failed: Sequence[Record]) -> None:
        """Write index and table; once those of all shards are there, those of all of them as well.

        Raises:
            WriteError: If it cannot be written.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        write_json(
            self.path, {"model": dict(self.model), "done": list(done), "failed": list(failed)}
        )
        write_predictions_table(self.path.with_suffix(".csv"), done)
        if self.shard.count > 1:
            self._join()

    def _join(self) -> None:
        """Write the index of all shards, again where another process wrote its own meanwhile."""
        written: list[dict[str, Any]] = []
        while (parts := self._read_parts()) != written:
            hashes = {part.get("model", {}).get("sha256") for part in parts}
            if hashes != {self.model["sha256"]}:
                return
            joined = {
                key: sorted((entry for part in parts for entry in part[key]), key=_by_input)
                for key in ("done", "failed")
            }
            path = self.out / INDEX_NAME
            write_json(path, {"model": dict(self.model), **joined})
            write_predictions_table(path.with_suffix(".csv"), joined["done"])
            written = parts

    def _read_parts(self) -> list[dict[str, Any]]:
        count = self.shard.count
        return [
            _read_index(self.out / name_index(Shard(number=number, count=count)))
            for number in range(1, count + 1)
        ]


def name_index(shard: Shard) -> str:
    """Give the name of the index of a part."""
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
    """Say which model it was: where it lay and the hash of its weights, and how it was applied.

    The hash of several is that of the lines of theirs, and of the way they answer together.

    Args:
        paths: What the user named.
        card: Of the first model.
        ensemble: How several answer.
        settings: What was put over their own `predict` section.
    """
    members = [
        {"path": str(path), "sha256": hash_file(find_model_folder(path) / WEIGHTS_NAME)}
        for path in list_models(paths)
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
        # As they come back from a file: tuples are lists there.
        "settings": json.loads(json.dumps(dict(settings or {}))),
    }
    if len(members) > 1:
        described |= {"ensemble": ensemble, "members": members}
    return described


def _by_input(record: Record) -> str:
    return str(record["input"])


def _read_index(path: Path) -> dict[str, Any]:
    """Read an index; what is missing or none of ours is empty, for it is rewritten anyway."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_index = isinstance(content, dict) and all(
        isinstance(content.get(key), kind)
        for key, kind in (("model", dict), ("done", list), ("failed", list))
    )
    return content if is_index else {}


def hash_image(image: ImageFile | VolumeFile) -> str:
    """Hash the file of an image; of a series in a folder, the lines of its slices' hashes."""
    series = image.source_header if isinstance(image, ImageFile) else None
    if not (isinstance(series, DicomSeries) and image.path.is_dir()):
        return hash_file(image.path)
    lines = [hash_file(image.path / name) for name in series.names]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
