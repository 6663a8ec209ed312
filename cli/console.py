"""What commands print: results for people or, with --json, one object for machines."""

import json
from collections.abc import Mapping
from typing import Any

import typer


def print_result(facts: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    """Print a result once: `facts` as JSON, or `text` for people."""
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else text)
