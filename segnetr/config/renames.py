"""Old names of settings, values, recipes and flags, and the names that replace them.

Configurations, run folders, model folders, dataset descriptions and command lines written for an
earlier version keep working. Each old name that is used prints one line on stderr, once.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

from segnetr.errors import UsageError

SETTINGS: Final[Mapping[str, str]] = {
    # Version 0.1. A setting keeps its section.
    "data.leave_out_faulty": "data.skip_invalid",
    "data.slices.neighbours": "data.slices.neighbors",
    "predict.post": "predict.postprocessing",
    "predict.choose_post": "predict.search_postprocessing",
    "regularisation": "regularization",
    # dataset.yaml of a folder.
    "licence": "license",
}
"""New dotted key of a setting by its old one."""

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "data.dataset": {"drawn": "synthetic"},
    "augment.erasing_mode": {"colour": "color"},
}
"""New value by old value, for each dotted key in its new form."""

MODEL_FILES: Final[Mapping[str, str]] = {
    "data_licence": "data_license",
    "post_trials": "postprocessing_trials",
    "centre": "center",
    "several": "multi_label",
}
"""New key of a file of a model folder by its old one."""

MODEL_FILE_VALUES: Final[Mapping[str, Mapping[str, str]]] = {"kind": {"picture": "image"}}
"""New value by old value, for each key of a file of a model folder."""

_MODEL_SECTIONS: Final = {
    "fitting": "augment",
    "intensity": "data.intensity",
    "predict": "predict",
    "slices": "data.slices",
}

RECIPES: Final[Mapping[str, str]] = {"dataset/drawn": "dataset/synthetic"}
"""New name of a packaged recipe by its old one."""

FLAGS: Final[Mapping[str, str]] = {
    "--leave-out-faulty": "--skip-invalid",
    "--accept-licence": "--accept-license",
    "--truth": "--ground-truth",
    "--part": "--split",
}
"""New flag by old flag, in every command that has the new one."""


@cache
def announce(old: str, new: str) -> None:
    """Print one line that names the replacement of an old name, once in a process."""
    sys.stderr.write(f"note: {old} is now {new}\n")


def rename_settings(settings: Mapping[str, Any], *, section: str = "") -> dict[str, Any]:
    """Return settings with the new names of old keys and values.

    Args:
        settings: Keys and values, nested by section.
        section: Dotted key of the section that holds `settings`; "" for a whole configuration.

    Raises:
        UsageError: If a setting is given by its old and by its new name.
    """
    renamed: dict[str, Any] = {}
    for key, value in settings.items():
        old = f"{section}.{key}" if section else str(key)
        new = SETTINGS.get(old, old)
        new_key = new.rpartition(".")[2] if new != old else key
        if new != old:
            if new_key in settings:
                raise UsageError(f"{old} is the old name of {new}; set only {new}")
            announce(old, new)
        renamed[new_key] = (
            rename_settings(value, section=new)
            if isinstance(value, Mapping)
            else rename_value(new, value)
        )
    return renamed


def rename_model_file(content: Any) -> Any:
    """Return the content of a JSON file of a model folder with the new names of old keys."""
    if not isinstance(content, dict):
        return content
    renamed = {}
    for key, value in content.items():
        new = MODEL_FILES.get(key, key)
        if new != key:
            announce(key, new)
        renamed[new] = (
            rename_settings(value, section=_MODEL_SECTIONS[key])
            if isinstance(value, dict) and key in _MODEL_SECTIONS
            else _rename(value, MODEL_FILE_VALUES.get(key, {}), key)
        )
    return renamed


def rename_sections(hashes: Mapping[str, str]) -> dict[str, str]:
    """Return hashes of sections of a configuration by the new names of the sections."""
    return {SETTINGS.get(name, name): value for name, value in hashes.items()}


def rename_value(key: str, value: Any) -> Any:
    """Return the new form of a value of one setting, or the value itself.

    Args:
        key: Dotted key of the setting, in its new form.
        value: The value.
    """
    return _rename(value, VALUES.get(key, {}), key)


def rename_recipe(name: str) -> str:
    """Return the new name of a packaged recipe, or the name itself."""
    if name not in RECIPES:
        return name
    announce(name, RECIPES[name])
    return RECIPES[name]


def rename_flags(arguments: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return a command line with new flags in place of old ones.

    Args:
        arguments: The words of the command line.
        known: Flags of the command; an old flag is replaced only by one of them.
    """
    renamed: list[str] = []
    for position, word in enumerate(arguments):
        if word == "--":
            return renamed + list(arguments[position:])
        flag, equals, value = word.partition("=")
        new = FLAGS.get(flag)
        if new in known and flag not in known:
            announce(flag, str(new))
            renamed.append(f"{new}{equals}{value}")
        else:
            renamed.append(word)
    return renamed


def _rename(value: Any, table: Mapping[str, str], key: str) -> Any:
    if not isinstance(value, str) or value not in table:
        return value
    announce(f"{key}={value}", f"{key}={table[value]}")
    return table[value]


def restore_names(content: Any, *, section: str) -> Any:
    """Return settings with the names that version 0.1 used, for hashes that it wrote.

    Args:
        content: Keys and values of one section, or a single value.
        section: Dotted key of the section or setting, in its new form.
    """
    if not isinstance(content, Mapping):
        values = {new: old for old, new in VALUES.get(section, {}).items()}
        return values.get(content, content) if isinstance(content, str) else content
    old_names = {new: old for old, new in SETTINGS.items()}
    restored = {}
    for key, value in content.items():
        new = f"{section}.{key}"
        old_key = old_names[new].rpartition(".")[2] if new in old_names else key
        restored[old_key] = restore_names(value, section=new)
    return restored
