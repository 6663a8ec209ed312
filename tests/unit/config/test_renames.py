"""Old names of version 0.1: each is accepted and prints one line that names the new one."""

import json
from pathlib import Path

import pytest
import yaml

from segnetr.config import renames
from segnetr.config.load import config_identity, load_config, parse_plain, read_changes
from segnetr.config.schema.classification import load_classify_config
from segnetr.config.schema.classification_recipe import ClassificationAugmentConfig
from segnetr.config.schema.dataset_description import FolderDescription
from segnetr.config.schema.segmentation import PredictConfig
from segnetr.config.schema.volumes import SliceConfig
from segnetr.errors import UsageError
from segnetr.outputs.models.model_file import read_card

FILES = Path(__file__).parents[2] / "fixtures" / "version_0_1"


@pytest.fixture(autouse=True)
def notices() -> None:
    """Forget the notices that other tests have printed."""
    renames.announce.cache_clear()


def read_notices(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("data.leave_out_faulty", "data.skip_invalid", True),
        ("data.slices.neighbours", "data.slices.neighbors", 2),
        ("predict.post", "predict.postprocessing", ("fill_holes",)),
        ("predict.choose_post", "predict.search_postprocessing", True),
    ],
)
@pytest.mark.parametrize("source", ["file", "flag", "assignment"])
def test_old_setting_is_accepted_from_every_source(tmp_path, capsys, old, new, value, source):
    text = json.dumps(value)
    if source == "file":
        file = tmp_path / "old.yaml"
        nested = json.loads(text)
        for part in reversed(old.split(".")):
            nested = {part: nested}
        file.write_text(yaml.safe_dump(nested))
        config = load_config([file])
    elif source == "flag":
        config = load_config(flags={old: value})
    else:
        config = load_config(assignments=[f"{old}={text}"])
    found = config
    for part in new.split("."):
        found = getattr(found, part)
    assert found == value
    assert read_notices(capsys) == [f"note: {old} is now {new}"]


def test_table_of_settings_is_tested_completely():
    tested = {
        "data.leave_out_faulty",
        "data.slices.neighbours",
        "predict.post",
        "predict.choose_post",
        "regularisation",
        "licence",
    }
    assert set(renames.SETTINGS) == tested
    assert set(renames.VALUES) == {"data.dataset", "augment.erasing_mode"}


def test_notice_is_printed_once_in_a_process(capsys):
    for _ in range(3):
        load_config(assignments=["data.leave_out_faulty=true"])
    assert len(read_notices(capsys)) == 1


def test_new_names_print_no_notice(capsys):
    load_config(["dataset/synthetic"], assignments=["data.skip_invalid=true"])
    assert read_notices(capsys) == []


def test_setting_with_its_old_and_its_new_name_is_rejected(tmp_path):
    file = tmp_path / "both.yaml"
    file.write_text("data: {leave_out_faulty: true, skip_invalid: false}")
    with pytest.raises(UsageError, match=r"set only data\.skip_invalid"):
        load_config([file])


def test_old_section_of_a_classifier_is_accepted(capsys):
    config = load_classify_config(assignments=["regularisation.label_smoothing=0.1"])
    assert config.regularization.label_smoothing == 0.1
    assert read_notices(capsys) == ["note: regularisation is now regularization"]


def test_old_value_of_the_dataset_is_accepted(capsys):
    assert load_config(assignments=["data.dataset=drawn"]).data.dataset == "synthetic"
    assert read_notices(capsys) == ["note: data.dataset=drawn is now data.dataset=synthetic"]


def test_old_value_of_the_erasing_mode_is_accepted(capsys):
    config = load_classify_config(assignments=["augment.erasing_mode=colour"])
    assert config.augment.erasing_mode == "color"
    assert len(read_notices(capsys)) == 1


def test_old_recipe_is_found(capsys):
    assert load_config(["dataset/drawn"]).data.dataset == "synthetic"
    assert read_notices(capsys) == ["note: dataset/drawn is now dataset/synthetic"]


def test_old_key_of_changes_to_a_saved_section_is_accepted(capsys):
    changes = read_changes("predict", {}, assignments=["predict.post=[fill_holes]"])
    assert changes == {"postprocessing": ["fill_holes"]}
    assert len(read_notices(capsys)) == 1


def test_old_keys_of_single_sections_are_accepted():
    assert parse_plain(PredictConfig, {"post": ["fill_holes"]}).postprocessing == ("fill_holes",)
    assert parse_plain(SliceConfig, {"neighbours": 1}).num_slices == 3
    assert parse_plain(ClassificationAugmentConfig, {"erasing_mode": "color"})


def test_old_key_of_a_dataset_description_is_accepted(capsys):
    content = {"name": "a", "classes": ["background", "b"], "channels": 1, "licence": "mine"}
    assert parse_plain(FolderDescription, content).license == "mine"
    assert read_notices(capsys) == ["note: licence is now license"]


def test_old_model_card_is_read_with_one_notice_per_key(capsys):
    card = read_card(FILES / "models" / "volume")
    assert card.slices.num_slices == 3
    assert card.data_license == "CC0"
    assert card.predict.postprocessing == ()
    assert sorted(read_notices(capsys)) == [
        "note: data.slices.neighbours is now data.slices.neighbors",
        "note: data_licence is now data_license",
        "note: post_trials is now postprocessing_trials",
        "note: predict.choose_post is now predict.search_postprocessing",
        "note: predict.post is now predict.postprocessing",
    ]


@pytest.mark.parametrize("name", ["interrupted", "classifier_interrupted"])
def test_hashes_of_an_old_run_are_those_of_its_configuration(name):
    run = FILES / "runs" / name
    stored = json.loads((run / "checkpoints/last/state.json").read_text())["identity"]
    if name == "interrupted":
        hashes = config_identity(load_config([run / "config.yaml"]))
    else:
        sections = ("data", "augment", "mixing", "regularization", "backbone", "train")
        config = load_classify_config([run / "config.yaml"])
        hashes = config_identity(config, parts=sections)
    stored = renames.rename_sections(stored)
    assert {key: stored[key] for key in hashes} == hashes


@pytest.mark.parametrize(("old", "new"), renames.FLAGS.items())
def test_old_flag_becomes_the_new_one_only_where_the_command_has_it(capsys, old, new):
    assert renames.rename_flags(["a", f"{old}=1", "--", old], [new]) == ["a", f"{new}=1", "--", old]
    assert read_notices(capsys) == [f"note: {old} is now {new}"]
    assert renames.rename_flags([old], ["--other"]) == [old]
    assert renames.rename_flags([old], [old, new]) == [old]
