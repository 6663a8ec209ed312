"""How a configuration is read: YAML with `extends:`, then flags and `--set`, then one check.

Precedence, weakest first: defaults of the schema, recipes named by `extends:`, the file itself, the
environment (`SEGNETR_DATA` alone), flags and `--set`. Nothing in a configuration is evaluated.
"""

import difflib
import hashlib
import json
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from segnetr.config.schema.segmentation import (
    MonaiConfig,
    RunConfig,
    SegNetrConfig,
    UNetConfig,
    UShapeConfig,
)
from segnetr.errors import UsageError

# What is trained when nobody names a network; why it is this one stands in the README.
DEFAULT_MODEL = "model/segnetr_any"

_MAX_FILE_BYTES = 1_000_000
_PLACE_FIELDS = {
    "data": ("data_dir", "cache_dir", "workers"),
    "train": ("device", "max_minutes", "weights", "encoder_weights", "accept_partial"),
    "backbone": ("pretrained",),
}
_MODEL_CONFIGS = {
    "segnetr": SegNetrConfig,
    "unet": UNetConfig,
    "unet_plus_plus": UShapeConfig,
    "segnet": UShapeConfig,
    "unext": UShapeConfig,
    "basic_unet": MonaiConfig,
    "attention_unet": MonaiConfig,
    "swin_unetr": MonaiConfig,
}


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without duplicate keys (PyYAML keeps the last in silence) and without aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse aliases: a few bytes of them can stand for gigabytes."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed in a configuration")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Refuse a key that stands twice."""
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"key {twice[0]!r} stands twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def load_config(
    recipes: Sequence[str | Path] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> RunConfig:
    """Read recipes and files, put flags and assignments on top, and check the result.

    Args:
        recipes: Names of recipes that come with the package ("model/segnetr") or paths of YAML
            files, weakest first.
        flags: Values by dotted key; None means that the flag was not given.
        assignments: Texts "a.b=value" of `--set`; the value is read as YAML.

    Returns:
        The checked configuration.

    Raises:
        UsageError: If a file is missing or no YAML, or a key or value does not fit; all bad keys
            are named at once, with the nearest right one.
    """
    return _check(merge_settings(recipes, flags=flags, assignments=assignments))


def merge_settings(
    recipes: Sequence[str | Path] = (),
    *,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> dict[str, Any]:
    """Put recipes, flags and assignments over each other, and check nothing yet.

    Args:
        recipes: As in `load_config`.
        flags: As in `load_config`.
        assignments: As in `load_config`.

    Raises:
        UsageError: If a file is missing or no YAML.
    """
    merged: dict[str, Any] = {}
    for recipe in recipes:
        merged = _merge(merged, _read_recipe(recipe, seen=()))
    for key, value in (flags or {}).items():
        if value is not None:
            merged = _merge(merged, _nest(key, value))
    for text in assignments:
        merged = _merge(merged, _parse_assignment(text))
    return _with_environment(merged)


def read_changes(
    section: str, flags: Mapping[str, Any], *, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Read flags and `--set` for one section, to be put over a configuration saved earlier.

    Args:
        section: The section that may be changed, as "predict".
        flags: Values by key within the section; None means that the flag was not given.
        assignments: Texts "section.key=value" of `--set`.

    Raises:
        UsageError: If an assignment is for another section.
    """
    changes = {key: value for key, value in flags.items() if value is not None}
    for text in assignments:
        parsed = _parse_assignment(text)
        other = [key for key in parsed if key != section]
        if other:
            raise UsageError(f"--set {text}: here only settings of {section}.* can be changed")
        changes = _merge(changes, parsed[section])
    return changes


def list_recipes(kind: str) -> list[str]:
    """Name the packaged recipes of one kind: "dataset", "model", "train" or "experiment"."""
    folder = files("segnetr.configs") / kind
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir())


def require_recipe(kind: str, name: str) -> str:
    """Give "kind/name" if such a recipe comes with the package.

    Raises:
        UsageError: If it does not; names the nearest one.
    """
    known = list_recipes(kind)
    if name not in known:
        raise UsageError(
            f"unknown {kind} {name!r}; {nearest(name, known)}known: {', '.join(known)}"
        )
    return f"{kind}/{name}"


def nearest(word: str, known: Sequence[str]) -> str:
    """Give "did you mean 'x'? " for the nearest known word, or nothing where none is near."""
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}? " if match else ""


def dump_config(config: Any) -> str:
    """Write a configuration as YAML that its loader reads back to the same one."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: Any) -> Any:
    """Turn a configuration or a part of it into plain numbers, texts, lists and mappings."""
    data = asdict(config) if is_dataclass(config) and not isinstance(config, type) else config
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    return str(data) if isinstance(data, Path) else data


def config_identity(
    config: Any, *, parts: Sequence[str] = ("data", "augment", "model", "train")
) -> dict[str, str]:
    """Hash each part of a configuration that decides the numbers of a training.

    Places and means (folders, workers, device, time limit) are left out: they may change between
    a run and its resumption.
    """
    content = {name: plain(getattr(config, name)) for name in parts}
    for part, settings in content.items():
        for name in _PLACE_FIELDS.get(part, ()):
            settings.pop(name, None)
    return {
        name: hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]
        for name, part in content.items()
    }


def read_yaml(source: Path | Traversable) -> dict[str, Any]:
    """Read keys and values; no key may stand twice, and aliases are refused.

    Raises:
        UsageError: If the file cannot be read so.
    """
    try:
        text = source.read_text(encoding="utf-8")
        if len(text) > _MAX_FILE_BYTES:
            raise UsageError(f"{source}: larger than {_MAX_FILE_BYTES} bytes; not a configuration")
        content = yaml.load(text, Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UsageError(
            f"{source}: not readable as YAML: {' '.join(str(error).split())}"
        ) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{source}: expected keys and values, found {type(content).__name__}")
    return content


def parse_plain(schema: Any, data: Mapping[str, Any]) -> Any:
    """Check plain data against one part of the schema, as `ModelConfig` or `PredictConfig`.

    Raises:
        UsageError: If it does not fit.
    """
    try:
        return TypeAdapter(schema).validate_python(dict(data))
    except ValidationError as error:
        raise UsageError(_explain(error, data, schema)) from None


def _read_recipe(recipe: str | Path, *, seen: tuple[str, ...]) -> dict[str, Any]:
    source = _find_recipe(recipe)
    if str(source) in seen:
        raise UsageError(f"{source}: `extends` comes back to the file itself")
    content = read_yaml(source)
    merged: dict[str, Any] = {}
    parents = content.pop("extends", [])
    for parent in [parents] if isinstance(parents, str) else parents:
        beside = source.parent / f"{parent}.yaml" if isinstance(source, Path) else None
        found = beside if beside is not None and beside.is_file() else str(parent)
        merged = _merge(merged, _read_recipe(found, seen=(*seen, str(source))))
    return _merge(merged, content)


def _find_recipe(recipe: str | Path) -> Path | Traversable:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UsageError(f"{path}: no such configuration file")
        return path
    packaged = files("segnetr.configs") / f"{recipe}.yaml"
    if not packaged.is_file():
        kind, _, name = str(recipe).partition("/")
        kinds = [item.name for item in files("segnetr.configs").iterdir() if item.is_dir()]
        if kind in kinds and name:
            require_recipe(kind, name)
        raise UsageError(f"{recipe}: neither a .yaml file nor a recipe that comes with segnetr")
    return packaged


def _parse_assignment(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: expected KEY=VALUE, for example train.steps=500")
    try:
        return _nest(key.strip(), yaml.load(value, Loader=_UniqueKeyLoader))
    except yaml.YAMLError:
        raise UsageError(f"--set {text}: the value is not readable as YAML") from None


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Put `top` over `base`, key by key; another architecture replaces the model as a whole."""
    changed = top.get("architecture") not in (None, base.get("architecture"))
    merged = {} if changed and "architecture" in base else dict(base)
    for key, value in top.items():
        old = merged.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def _with_environment(merged: dict[str, Any]) -> dict[str, Any]:
    """Find the data set below `$SEGNETR_DATA` where no folder was named."""
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
        place = [str(part) for part in item["loc"] if part not in _MODEL_CONFIGS]
        key = ".".join(place)
        if item["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
            known = _known_keys(schema, place[:-1], data)
            texts.append(f"unknown setting {key!r}; {nearest(place[-1], known)}".rstrip("; "))
        else:
            texts.append(
                f"{key}: {item['msg'][0].lower()}{item['msg'][1:]} (got {item['input']!r})"
            )
    return "configuration: " + "; ".join(texts)


def _known_keys(schema: Any, place: Sequence[str], data: Mapping[str, Any]) -> list[str]:
    for part in place:
        if part == "model":
            architecture = str(data.get("model", {}).get("architecture", "segnetr"))
            schema = _MODEL_CONFIGS.get(architecture, SegNetrConfig)
        else:
            types = {item.name: item.type for item in fields(schema)}
            schema = types.get(part)
        if not is_dataclass(schema):
            return []
    return [item.name for item in fields(schema)]
