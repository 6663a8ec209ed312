"""Flags that are derived from the schema: name, type, choices and help."""

import inspect
from pathlib import Path
from typing import get_args

import pytest
from segnetr.cli import flags, main
from segnetr.cli.command import build_command

from segnetr.errors import UsageError
from segnetr.losses import LOSSES


def describe(path: str, schema: str = "segmentation"):
    """Return the type and the typer option of a setting's parameter."""
    parameter = flags.setting_parameter(path, schema)
    kind, option = get_args(parameter.annotation)
    return get_args(kind)[0], option


@pytest.mark.parametrize(
    ("path", "kind", "flag"),
    [
        ("train.lr", float, "--lr"),
        ("train.steps", int, "--steps"),
        ("data.data_dir", Path, "--data-dir"),
        ("train.compile", bool, "--compile/--no-compile"),
        ("model.encoder", str, "--encoder"),
    ],
)
def test_type_and_name_of_a_flag_come_from_the_schema(path, kind, flag):
    found, option = describe(path)
    assert found is kind
    assert flag in {option.default, *(option.param_decls or ())}


def test_help_is_the_first_sentence_of_the_description():
    assert describe("train.lr")[1].help == "Peak learning rate."
    assert describe("train.loss")[1].help == "Loss function."


def test_every_flag_of_every_command_has_a_help_text(monkeypatch):
    for name in main.COMMANDS:
        group = main._Root(name="segnetr").get_command(None, name)
        for command in getattr(group, "table", {name: None}):
            built = group.get_command(None, command) if hasattr(group, "table") else group
            for parameter in built.params:
                assert getattr(parameter, "help", None), f"{name} {command} {parameter.name}"


def test_choices_come_from_literals_and_tables():
    assert describe("train.amp")[1].metavar == "auto|bf16|fp16|off"
    assert describe("train.loss")[1].metavar == "|".join(LOSSES)
    assert "medmnist" in describe("data.dataset", "classification")[1].metavar
    assert {"irsc", "plain"} <= set(describe("model.skip")[1].metavar.split("|"))


def test_setting_that_does_not_exist_cannot_be_a_flag():
    with pytest.raises(KeyError, match=r"train\.epoch"):
        flags.setting_parameter("train.epoch", "segmentation")


def test_setting_of_a_complex_type_cannot_be_a_flag():
    with pytest.raises(TypeError, match=r"train\.image_size"):
        flags.setting_parameter("train.image_size", "segmentation")


def test_values_of_one_section_are_selected():
    assert flags.section({"predict.tta": "d4", "train.lr": 1.0}, "predict") == {"tta": "d4"}


@pytest.mark.parametrize("source", ["flag", "assignment"])
def test_unknown_loss_is_an_error_with_the_closest_name(source):
    given = {"train.loss": "dice_cee"} if source == "flag" else {}
    assignments = ["train.loss=dice_cee"] if source == "assignment" else []
    with pytest.raises(UsageError, match="unknown loss 'dice_cee'; did you mean 'dice_ce'"):
        flags.load_settings(given, assignments=assignments)


def test_commands_declare_each_setting_once():
    for name in ("train", "classify"):
        command = main._Root(name="segnetr").get_command(None, name)
        names = [option for param in command.params for option in param.opts]
        assert len(names) == len(set(names))
    assert inspect.isfunction(build_command)


def test_dataset_without_a_recipe_is_accepted_by_its_name(monkeypatch):
    monkeypatch.setattr("segnetr.config.load.list_recipes", lambda _: [])
    assert flags.load_settings({"data.dataset": "isic2017"}).data.dataset == "isic2017"
    with pytest.raises(UsageError, match="unknown dataset 'isic2o17'; did you mean 'isic2017'"):
        flags.load_settings({"data.dataset": "isic2o17"})
