"""`segnetr models` lists every backbone, and docs/backbones.md contains the same table."""

import json
from pathlib import Path

import pytest

from hybrid_backbones import get_spec, list_models
from segnetr.workflows.models.backbones import backbone_markdown

PAGE = Path(__file__).resolve().parents[3] / "docs" / "backbones.md"
START = "<!-- written by: segnetr models list --markdown -->\n"
END = "\n<!-- end -->"


def test_table_in_the_documentation_is_the_registry(command):
    done = command("models", "list", "--markdown")
    assert done.returncode == 0
    text = PAGE.read_text(encoding="utf-8")
    table = text[text.index(START) + len(START) : text.index(END)]
    assert table == done.stdout.rstrip("\n") == backbone_markdown()
    assert all(f"`{name}`" in table for name in list_models())


@pytest.mark.slow
def test_json_list_contains_all_facts_of_every_backbone(command):
    done = command("models", "list", "--json")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert {row["name"] for row in facts["models"]} >= {"segnetr", "unet"}
    rows = {row["name"]: row for row in facts["backbones"]}
    assert sorted(rows) == list_models()
    row = rows["swin_tiny"]
    assert row["parameters"] == 28_288_354
    assert row["gmac"] == 4.491
    assert (row["image_size"], row["top1"]) == (224, 81.2)
    assert row["strides"] == [4, 8, 16, 32]
    assert row["channels"] == [96, 192, 384, 768]
    assert row["weights_license"] == "MIT"
    assert rows["mobilevit_s"]["mean"] == [0, 0, 0]
    assert rows["cvt_13"]["mean"] == [0.485, 0.456, 0.406]
    for row in rows.values():
        assert all(value not in ("", []) for value in row.values())


def test_backbone_is_shown_as_text_and_as_json(command):
    shown = command("models", "show", "cvt_13")
    assert shown.returncode == 0
    assert "19,997,480" in shown.stdout
    assert "arXiv:2103.15808" in shown.stdout
    facts = json.loads(command("models", "show", "cvt_13", "--json").stdout)
    assert facts["settings"]["depths"] == list(get_spec("cvt_13").config.depths)


@pytest.mark.parametrize(
    ("name", "closest"), [("cvt13", "cvt_13"), ("swin_tinny", "swin_tiny"), ("segnett", "segnet")]
)
def test_error_of_an_unknown_name_suggests_the_closest(name, closest, command):
    done = command("models", "show", name)
    assert done.returncode == 2
    assert f"did you mean '{closest}'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
