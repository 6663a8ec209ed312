"""Read configurations: YAML with `extends:`, then flags and `--set`, then one check.

Precedence, weakest first: defaults of the schema, recipes named by `extends:`, the file itself, the
environment (`SEGNETR_DATA` alone), flags and `--set`. Nothing in a configuration is evaluated.
"""

import hashlib
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from segnetr.config.renames import (
    rename_recipe,
    rename_settings,
    restore_names,
)
from segnetr.config.schema.intensity import IntensityConfig
from segnetr.config.schema.segmentation import (
    DataConfig,
    ModelConfig,
    PredictConfig,
    RunConfig,
    SegNetrConfig,
)
from segnetr.config.schema.volumes import SliceConfig
from segnetr.errors import UsageError, suggest, unknown_name

# The network that is trained if none is named; docs/models.md gives the reason for this one.
DEFAULT_MODEL = "model/segnetr_any"

# Sections that determine the numbers of a training of segmentation.
IDENTITY_PARTS = ("data", "augment", "model", "train")

_MAX_FILE_BYTES = 1_000_000
# Settings that do not change the numbers of a training, by section.
_MACHINE_FIELDS = {
    "data": ("data_dir", "cache_dir", "workers"),
    "train": ("device", "max_minutes", "weights", "encoder_weights", "accept_partial"),
    "backbone": ("pretrained",),
}
_MODEL_CONFIGS = {
    architecture: schema
    for schema in get_args(get_args(ModelConfig)[0])
    for architecture in get_args(get_type_hints(schema)["architecture"])
}
# Sections that files other than configurations hold by themselves, for example `model.json`.
_SECTIONS = {
    DataConfig: "data",
    IntensityConfig: "data.intensity",
    PredictConfig: "predict",
    SliceConfig: "data.slices",
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without duplicate keys (PyYAML silently keeps the last) and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few bytes of them can expand to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed in a configuration")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a mapping with a duplicate key."""
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"duplicate key {twice[0]!r} (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def load_config(
    recipes: Sequence[str | Path] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """Read recipes and files, apply flags and assignments, and check the result.

    Args:
        recipes: Names of packaged recipes ("model/segnetr") or paths of YAML files, weakest first.
        flags: Values by dotted key; None means that the flag was not given.
        assignments: "a.b=value" strings of `--set`; the value is read as YAML.

    Returns:
        The checked configuration.

    Raises:
        UsageError: If a file is missing or not YAML, or a key or value is invalid. The message
            names all invalid keys, each with the closest valid one.
    """
    return _check(merge_settings(recipes, flags=flags, assignments=assignments))


def merge_settings(
    recipes: Sequence[str | Path] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Merge recipes, flags and assignments without checking the result.

    Args:
        recipes: As in `load_config`.
        flags: As in `load_config`.
        assignments: As in `load_config`.

    Raises:
        UsageError: If a file is missing or not YAML.
    """
    merged: dict[str, Any] = {}
    for recipe in recipes:
        merged = _merge(merged, _read_recipe(recipe, seen=()))
    for key, value in (flags or {}).items():
        if value is not None:
            merged = _merge(merged, rename_settings(_nest(key, value)))
    for text in assignments:
        merged = _merge(merged, _parse_assignment(text))
    return _with_environment(merged)


def read_changes(
    section: str, flags: Mapping[str, Any], *, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Read flags and `--set` for one section, as changes to a saved configuration.

    Args:
        section: The section that may be changed, as "predict".
        flags: Values by key within the section; None means that the flag was not given.
        assignments: "section.key=value" strings of `--set`.

    Raises:
        UsageError: If an assignment is for another section.
    """
    changes = {key: value for key, value in flags.items() if value is not None}
    for text in assignments:
        parsed = _parse_assignment(text)
        other = [key for key in parsed if key != section]
        if other:
            raise UsageError(f"--set {text}: this command accepts only settings of {section}.*")
        changes = _merge(changes, parsed[section])
    return changes


def list_recipes(kind: str) -> list[str]:
    """Return the names of the packaged recipes of one kind, for example "dataset" or "model"."""
    folder = files("segnetr.configs") / kind
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir())


def require_recipe(kind: str, name: str) -> str:
    """Return "kind/name" if the package contains such a recipe.

    Raises:
        UsageError: If it does not; the message names the closest one.
    """
    recipe = rename_recipe(f"{kind}/{name}")
    known = list_recipes(kind)
    if recipe.partition("/")[2] not in known:
        raise unknown_name(kind, name, known)
    return recipe


def dump_config(config: Any) -> str:
    """Return a configuration as YAML that loads as an equal one."""
    return yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True)


def to_plain(config: Any) -> Any:
    """Return a configuration or a section of it as numbers, strings, lists and mappings."""
    data = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    if isinstance(data, Mapping):
        return {key: to_plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [to_plain(value) for value in data]
    return str(data) if isinstance(data, Path) else data


def config_identity(config: Any, *, parts: Sequence[str] = IDENTITY_PARTS) -> dict[str, str]:
    """Return a hash of each section of a configuration that determines a training's numbers.

    Folders, workers, device and time limit are left out: they may change when a run is resumed.
    Keys are hashed under the names of version 0.1, so that its runs can be resumed.

    Args:
        config: The configuration.
        parts: Names of the sections.
    """
    content = _select_sections(config, parts)
    return {
        name: hashlib.sha256(
            json.dumps(restore_names(settings, section=name), sort_keys=True).encode()
        ).hexdigest()[:16]
        for name, settings in content.items()
    }


def describe_changed_settings(before: Any, now: Any, *, parts: Sequence[str]) -> list[str]:
    """Return "key before -> now" for each setting that differs and determines the numbers.

    Args:
        before: A configuration.
        now: Another one of the same schema.
        parts: Names of the sections.
    """
    old, new = (_flatten(_select_sections(config, parts)) for config in (before, now))
    return [
        f"{key} {_show(old.get(key))} -> {_show(new.get(key))}"
        for key in dict.fromkeys([*old, *new])
        if old.get(key) != new.get(key)
    ]


def _select_sections(config: Any, parts: Sequence[str]) -> dict[str, Any]:
    """Return sections as plain data, without the settings of the machine."""
    content = {name: to_plain(getattr(config, name)) for name in parts}
    for section, settings in content.items():
        for name in _MACHINE_FIELDS.get(section, ()):
            settings.pop(name, None)
    return content


def _flatten(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _show(value: Any) -> str:
    return "unset" if value is None else json.dumps(value).strip('"')


def read_yaml(source: Path | Traversable) -> dict[str, Any]:
    """Read keys and values from a YAML file without duplicate keys and aliases.

    Raises:
        UsageError: If the file is not such a file.
    """
    try:
        text = source.read_text(encoding="utf-8")
        if len(text) > _MAX_FILE_BYTES:
            raise UsageError(f"{source}: larger than {_MAX_FILE_BYTES} bytes; not a configuration")
        content = _parse_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{source}: not readable as YAML: {' '.join(str(error).split())}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{source}: expected keys and values, found {type(content).__name__}")
    return content


def _parse_yaml(text: str) -> Any:
    """Parse YAML.

    PyYAML raises other types than its own for dates, numbers and tags without a valid value
    (`2001-99-99`, `!!int abc`) and for deep nesting.

    Raises:
        yaml.YAMLError: If the text is not valid.
    """
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise yaml.YAMLError(f"a value does not fit its type ({error})") from None


def parse_plain(schema: Any, data: Mapping[str, Any]) -> Any:
    """Check plain data against one section of the schema, for example `PredictConfig`.

    Raises:
        UsageError: If a key or value is invalid.
    """
    data = rename_settings(data, section=_SECTIONS.get(schema, ""))
    try:
        return TypeAdapter(schema).validate_python(data)
    except ValidationError as error:
        raise UsageError(_explain(error, data, schema)) from None


def _read_recipe(recipe: str | Path, *, seen: tuple[str, ...]) -> dict[str, Any]:
    source = _find_recipe(recipe)
    if str(source) in seen:
        raise UsageError(f"{source}: `extends` leads back to the file itself")
    content = rename_settings(read_yaml(source))
    merged: dict[str, Any] = {}
    parents = content.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UsageError(f"{source}: `extends` must be a recipe or a list of them, not {parents!r}")
    for parent in parents:
        sibling = source.parent / f"{parent}.yaml" if isinstance(source, Path) else None
        found = sibling if sibling is not None and sibling.is_file() else str(parent)
        merged = _merge(merged, _read_recipe(found, seen=(*seen, str(source))))
    return _merge(merged, content)


def _find_recipe(recipe: str | Path) -> Path | Traversable:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UsageError(f"{path}: no such configuration file")
        return path
    recipe = rename_recipe(str(recipe))
    packaged = files("segnetr.configs") / f"{recipe}.yaml"
    if not packaged.is_file():
        kind, _, name = recipe.partition("/")
        kinds = [item.name for item in files("segnetr.configs").iterdir() if item.is_dir()]
        if kind in kinds and name:
            require_recipe(kind, name)
        raise UsageError(f"{recipe}: neither a .yaml file nor a packaged recipe")
    return packaged


def _parse_assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: expected KEY=VALUE, for example train.steps=500")
    try:
        nested = _nest(key.strip(), _parse_yaml(value))
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: the value is not readable as YAML") from None
    return rename_settings(nested)


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `top` into `base` key by key; another architecture replaces the whole model."""
    changed = top.get("architecture") not in (None, base.get("architecture"))
    merged = {} if changed and "architecture" in base else dict(base)
    for key, value in top.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_environment(merged: dict[str, Any]) -> dict[str, Any]:
    """Fill in the dataset's folder below `$SEGNETR_DATA` if no folder is set."""
    root = os.environ.get("SEGNETR_DATA")
    data = merged.get("data", {})
    if not root or not isinstance(data, Mapping) or data.get("data_dir") is not None:
        return merged
    folder = Path(root) / str(data.get("dataset", ""))
    if not data.get("dataset") or not folder.is_dir():
        return merged
    return _merge(merged, {"data": {"data_dir": str(folder)}})


def _check(merged: dict[str, Any]) -> RunConfig:
    model = merged.get("model", {})
    if isinstance(model, Mapping) and "architecture" not in model:
        default = _read_recipe(DEFAULT_MODEL, seen=())["model"]
        merged = {**merged, "model": _merge(default, model)}
    return parse_plain(RunConfig, merged)  # type: ignore[no-any-return]


def _explain(error: ValidationError, data: Mapping[str, Any], schema: Any) -> str:
    texts = []
    for item in error.errors(include_url=False):
        path = [str(part) for part in item["loc"] if part not in _MODEL_CONFIGS]
        key = ".".join(path)
        if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            known = _known_keys(schema, path[:-1], data)
            texts.append(f"unknown setting {key!r}; {suggest(path[-1], known)}".rstrip("; "))
        elif item["type"] == "union_tag_invalid" and "tag" in item["ctx"]:
            name = str(item["ctx"]["tag"])
            texts.append(
                str(unknown_name(item["ctx"]["discriminator"].strip("'"), name, _MODEL_CONFIGS))
            )
        else:
            texts.append(
                f"{key}: {item['msg'][0].lower()}{item['msg'][1:]} (got {item['input']!r})"
            )
    return "configuration: " + "; ".join(texts)


def _known_keys(schema: Any, path: Sequence[str], data: Mapping[str, Any]) -> list[str]:
    for part in path:
        if part == "model":
            architecture = str(data.get("model", {}).get("architecture", "segnetr"))
            schema = _MODEL_CONFIGS.get(architecture, SegNetrConfig)
        else:
            types = {item.name: item.type for item in fields(schema)}
            schema = types.get(part)
        if not is_dataclass(schema):
            return []
    return [item.name for item in fields(schema)]
