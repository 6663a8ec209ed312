"""What a resumed run must have in common with its start: settings and data."""

import json
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from segnetr.config.load import describe_changed_settings
from segnetr.data.splits.content import CaseContent, read_content, write_content
from segnetr.engine.training.run_dir import RunDir
from segnetr.errors import UsageError
from segnetr.storage.manifest import write_json

AllowedChange = Literal["data"]
"""What may differ in a resumed run if the user allows it."""

CONTENT = "content"
"""Name of the hash of the cases in the identity of a run."""

_NAMED_CASES = 5


def reject_changed_settings(
    run: RunDir, config: Any, *, load: Callable[[], Any], parts: Sequence[str]
) -> None:
    """Refuse to resume a run with other settings, and name each with both values.

    Without a readable configuration, nothing is refused here: the trainer compares hashes.

    Args:
        run: The run.
        config: The configuration now.
        load: Reads the configuration of the run.
        parts: Sections that determine the numbers of a training.

    Raises:
        UsageError: If a setting was changed.
    """
    try:
        before = load()
    except UsageError:
        return
    changes = describe_changed_settings(before, config, parts=parts)
    if changes:
        raise UsageError(
            f"{run.path}: cannot resume: {'; '.join(changes)}; use the settings of the run, or "
            "start a new run with another --out"
        )


def check_content(
    run: RunDir, content: CaseContent, *, allow: Collection[AllowedChange]
) -> list[str]:
    """Compare the cases of a resumed run with those at its start.

    Args:
        run: The run.
        content: Hashes of the cases now.
        allow: Changes that the user allows.

    Returns:
        Lines for the user about changes that are allowed.

    Raises:
        UsageError: If a case was changed. The message names the first ones.
        DataError: If the hashes of the run are damaged.
    """
    before = read_content(run.content)
    changes = {} if before is None else before.find_changes(content)
    if not changes:
        return []
    names = ", ".join(list(changes)[:_NAMED_CASES])
    more = f" and {len(changes) - _NAMED_CASES} more" if len(changes) > _NAMED_CASES else ""
    cases = f"{len(changes)} cases were changed since the start of the run: {names}{more}"
    if "data" not in allow:
        raise UsageError(
            f"{run.path}: cannot resume: {cases}; restore them, start a new run with another "
            "--out, or continue with --allow-change data, which is recorded in the run"
        )
    return [f"{cases}; the change is recorded in {run.provenance}"]


def find_ignored_identity(run: RunDir, *, allow: Collection[AllowedChange]) -> set[str]:
    """Return the entries of the identity that may differ from those in the checkpoint.

    The hash of the cases may differ if the user allows it, or if the run was started by a version
    that did not store it.
    """
    is_needed = all(CONTENT in identity for identity in _read_identities(run))
    return set() if is_needed and "data" not in allow else {CONTENT}


def record_content(run: RunDir, content: CaseContent, *, resume: bool) -> None:
    """Write the hashes of the cases; for a resumed run, add changes to the provenance.

    A new run replaces the hashes of one that ended in this folder before its first checkpoint.

    Raises:
        WriteError: If a file cannot be written.
    """
    before = read_content(run.content) if resume else None
    changes = {} if before is None else before.find_changes(content)
    if changes:
        checkpoint, _ = run.load_checkpoint()
        _add_to_provenance(
            run,
            {
                "step": checkpoint.state.step,
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
                "cases": {
                    case_id: {"before": list(old), "now": list(new)}
                    for case_id, (old, new) in changes.items()
                },
            },
        )
    if before != content:
        write_content(content, run.content)


def _read_identities(run: RunDir) -> list[Any]:
    identities = []
    for folder in (run.last, run.previous):
        try:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            identities.append(dict(state["identity"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # the trainer reports a damaged checkpoint
    return identities


def _add_to_provenance(run: RunDir, change: dict[str, Any]) -> None:
    try:
        provenance = json.loads(run.provenance.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        provenance = None
    if not isinstance(provenance, dict):
        provenance = {}
    earlier = provenance.get("data_changes")
    provenance["data_changes"] = [*(earlier if isinstance(earlier, list) else []), change]
    write_json(run.provenance, provenance)
