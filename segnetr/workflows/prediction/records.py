"""Records of predictions: what one call adds to those of earlier calls."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segnetr.errors import UsageError

Record = Mapping[str, Any]
EARLIER_MODEL = "earlier_model"
_MODEL_IDENTITY = ("sha256", "settings", "ensemble")


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The content of an index.

    Attributes:
        model: Description of the model of the latest call.
        done: One record for each result. Those of another model have its position in
            `earlier_models` as "earlier_model".
        failed: One record for each input without a result, with the reason.
        earlier_models: Descriptions of other models with records in `done`.
    """

    model: Mapping[str, Any]
    done: tuple[Record, ...] = ()
    failed: tuple[Record, ...] = ()
    earlier_models: tuple[Mapping[str, Any], ...] = ()

    def extend(self, new: "Records", *, key: str = "mask") -> "Records":
        """Return these records and later ones, which replace those of the same results and inputs.

        Args:
            new: The later records. Their model becomes the model of all.
            key: The entry that identifies a result: "mask" or "input".
        """
        replaced = {record[key] for record in new.done}
        inputs = {record["input"] for record in (*new.done, *new.failed)}
        results = [(self.find_model(one), one) for one in self.done if one[key] not in replaced]
        results += [(new.find_model(one), one) for one in new.done]
        earlier: list[Mapping[str, Any]] = []
        done: list[Record] = []
        for model, record in results:
            plain = {name: value for name, value in record.items() if name != EARLIER_MODEL}
            if not is_same_model(model, new.model):
                if model not in earlier:
                    earlier.append(model)
                plain[EARLIER_MODEL] = earlier.index(model)
            done.append(plain)
        return Records(
            model=new.model,
            done=tuple(done),
            failed=(*(one for one in self.failed if one["input"] not in inputs), *new.failed),
            earlier_models=tuple(earlier),
        )

    def find_model(self, record: Record) -> Mapping[str, Any]:
        """Return the description of the model that made a result."""
        number = record.get(EARLIER_MODEL)
        return self.model if number is None else self.earlier_models[number]

    def sort(self) -> "Records":
        """Return the records in the order of their inputs."""
        return Records(
            model=self.model,
            done=tuple(sorted(self.done, key=_by_input)),
            failed=tuple(sorted(self.failed, key=_by_input)),
            earlier_models=self.earlier_models,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the records as plain data."""
        models = {"earlier_models": list(self.earlier_models)} if self.earlier_models else {}
        return {
            "model": dict(self.model),
            **models,
            "done": list(self.done),
            "failed": list(self.failed),
        }


def is_same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two descriptions have equal weights, settings and ensemble method."""
    return all(one.get(name) == other.get(name) for name in _MODEL_IDENTITY)


def read_records(path: Path, *, key: str = "mask") -> Records | None:
    """Read an index. Return None if there is none.

    Raises:
        UsageError: If the file is something else, which would be overwritten.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        content = None
    if not _is_index(content, key):
        raise UsageError(
            f"{path} is not an index of predictions and would be overwritten; move it, or choose "
            "another --out"
        )
    return Records(
        model=content["model"],
        done=tuple(content.get("done", ())),
        failed=tuple(content["failed"]),
        earlier_models=tuple(content.get("earlier_models", ())),
    )


def _is_index(content: Any, key: str) -> bool:
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        return False
    models, done = content.get("earlier_models", []), content.get("done", [])
    return (
        _is_list_of_objects(models, ())
        and _is_list_of_objects(done, ("input", key))
        and _is_list_of_objects(content.get("failed"), ("input",))
        and all(_is_position(one.get(EARLIER_MODEL), models) for one in done)
    )


def _is_list_of_objects(value: Any, names: Iterable[str]) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and all(isinstance(one.get(name), str) for name in names)
        for one in value
    )


def _is_position(number: Any, models: Sequence[Any]) -> bool:
    return number is None or (type(number) is int and 0 <= number < len(models))


def _by_input(record: Record) -> str:
    return str(record["input"])
