"""Loading configurations: precedence, invalid input, and writing them back."""

from dataclasses import replace
from pathlib import Path

import pytest

from segnetr.config.load import (
    DEFAULT_MODEL,
    config_identity,
    dump_config,
    list_recipes,
    load_config,
    merge_settings,
    read_changes,
    require_recipe,
)
from segnetr.config.schema.classification import load_classify_config
from segnetr.config.schema.segmentation import RunConfig, UNetConfig
from segnetr.errors import UsageError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_empty_configuration_is_the_default_model_with_default_settings():
    config = load_config()
    assert config == replace(RunConfig(), model=load_config([DEFAULT_MODEL]).model)
    assert config.model.mixing == "position"


def test_one_model_setting_changes_the_default_model():
    config = load_config(assignments=["model.width=32"])
    assert config.model == replace(load_config().model, width=32)


def test_written_configuration_reads_back_equal(tmp_path):
    config = load_config(
        flags={"train.lr": 3e-4, "data.data_dir": tmp_path}, assignments=["model.width=32"]
    )
    assert load_config([write(tmp_path / "config.yaml", dump_config(config))]) == config


def test_later_sources_override_earlier_ones(tmp_path):
    parent = write(tmp_path / "parent.yaml", "train: {lr: 0.1, epochs: 7, batch_size: 3}")
    child = write(tmp_path / "child.yaml", "extends: parent\ntrain: {lr: 0.2, batch_size: 4}")
    config = load_config([child], flags={"train.batch_size": 5}, assignments=["train.seed=9"])
    assert (config.train.lr, config.train.epochs) == (0.2, 7)
    assert (config.train.batch_size, config.train.seed) == (5, 9)
    assert parent.is_file()


def test_numbers_that_yaml_reads_as_text_become_numbers():
    assert load_config(assignments=["train.lr=1e-4"]).train.lr == pytest.approx(1e-4)


def test_one_number_is_a_square_image():
    assert load_config(assignments=["train.image_size=192"]).train.image_size == (192, 192)


def test_another_architecture_replaces_the_whole_model_section(tmp_path):
    file = write(tmp_path / "a.yaml", "model: {architecture: segnetr, windows: [4, 4, 4, 2]}")
    config = load_config([file], assignments=["model={architecture: unet, width: 16}"])
    assert config.model == UNetConfig(width=16)


def test_error_names_all_invalid_keys_with_the_closest_valid_ones():
    with pytest.raises(UsageError) as error:
        load_config(assignments=["train.epoch=3", "model.widht=32", "train.lr=-1"])
    message = str(error.value)
    for part in ("train.epoch", "'epochs'", "model.widht", "'width'", "train.lr"):
        assert part in message
    assert "\n" not in message


def test_error_of_an_unknown_architecture_names_the_closest():
    with pytest.raises(UsageError, match="unknown architecture 'unett'; did you mean 'unet'"):
        load_config(assignments=["model.architecture=unett"])


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("train: {lr: 1\n", "not readable"),
        ("train: {lr: 1}\ntrain: {lr: 2}", "duplicate key"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("- 1\n- 2", "expected keys"),
        ("train: !!python/object/apply:os.system ['true']", "not readable"),
        ("extends: self", "leads back"),
    ],
)
def test_file_that_is_not_a_plain_configuration_is_rejected_in_one_line(tmp_path, text, word):
    file = write(tmp_path / "self.yaml", text)
    with pytest.raises(UsageError, match=word) as error:
        load_config([file])
    assert "self" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["train.lr", "=3", "train.lr=[1"])
def test_assignment_without_key_and_value_is_rejected(text):
    with pytest.raises(UsageError, match="--set"):
        load_config(assignments=[text])


def test_error_of_an_unknown_recipe_names_the_closest():
    with pytest.raises(UsageError, match="did you mean 'segnetr_s'"):
        require_recipe("model", "segnet_s")


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="no such configuration file"):
        load_config([tmp_path / "none.yaml"])


@pytest.mark.parametrize("kind", ["dataset", "model", "train", "experiment"])
def test_every_packaged_recipe_is_a_valid_configuration(kind):
    recipes = list_recipes(kind)
    assert recipes
    for name in recipes:
        recipe = f"{kind}/{name}"
        is_classifier = merge_settings([recipe]).get("task") == "classification"
        (load_classify_config if is_classifier else load_config)([recipe])


def test_every_experiment_starts_with_command_hardware_time_and_score():
    folder = Path(__file__).resolve().parents[3] / "configs" / "experiment"
    for file in folder.glob("*.yaml"):
        lines = file.read_text().splitlines()[:4]
        for line, word in zip(lines, ("command", "hardware", "time", "score"), strict=True):
            assert line.lower().startswith(f"# {word}"), f"{file.name}: {line}"


def test_identity_depends_only_on_settings_that_change_the_numbers():
    plain = config_identity(load_config())
    moved = config_identity(load_config(assignments=["data.workers=0", "train.device=cpu"]))
    other = config_identity(load_config(assignments=["train.lr=0.5"]))
    assert moved == plain
    assert {key for key in plain if plain[key] != other[key]} == {"train"}


def test_environment_sets_the_data_folder_and_a_flag_overrides_it(tmp_path, monkeypatch):
    (tmp_path / "isic2018").mkdir()
    monkeypatch.setenv("SEGNETR_DATA", str(tmp_path))
    found = load_config(assignments=["data.dataset=isic2018"])
    named = load_config(assignments=["data.dataset=isic2018", "data.data_dir=elsewhere"])
    assert found.data.data_dir == tmp_path / "isic2018"
    assert named.data.data_dir == Path("elsewhere")


def test_changes_to_one_section_reject_settings_of_other_sections():
    assert read_changes("predict", {"tta": "flips"}, assignments=["predict.overlap=0.25"]) == {
        "tta": "flips",
        "overlap": 0.25,
    }
    with pytest.raises(UsageError, match=r"only settings of predict\.\*"):
        read_changes("predict", {}, assignments=["train.lr=1"])


@pytest.mark.parametrize(
    "text",
    [
        "train: {lr: 2001-99-99}",
        "train: {lr: !!int abc}",
        "train: {lr: !!float x}",
        "train: {lr: !!timestamp x}",
        "train: {steps: " + "9" * 5000 + "}",
        "a: " + "[" * 3000,
        "extends: 5",
        "extends:",
        "extends: [5]",
    ],
)
def test_hostile_yaml_is_refused_as_wrong_usage(tmp_path: Path, text: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="hostile"):
        load_config([path])


@pytest.mark.parametrize("value", ["2001-99-99", "!!int abc", "!!timestamp x", "[" * 3000])
def test_hostile_value_of_an_assignment_is_refused_as_wrong_usage(value: str) -> None:
    with pytest.raises(UsageError, match="--set train"):
        load_config(assignments=[f"train.lr={value}"])
