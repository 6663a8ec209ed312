"""Test that output paths never overwrite files for any input names."""

import itertools
import random
from pathlib import Path

import pytest

from segnetr.errors import UsageError
from segnetr.outputs.masks.output_paths import (
    PROBABILITY_SUFFIXES,
    overlay_path,
    plan_output_paths,
    probability_path,
    split_suffix,
)

OUT = Path("results")


def names(*inputs: tuple[str, str]) -> list[str]:
    plan = plan_output_paths(
        [(Path(source), Path(relative)) for source, relative in inputs], out=OUT
    )
    assert [str(item.source) for item in plan] == [source for source, _ in inputs]
    return [item.relative.as_posix() for item in plan]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("x.png", "x.png"),
        ("x.jpg", "x.png"),
        ("x.JPEG", "x.png"),
        ("x.bmp", "x.bmp"),
        ("x.tif", "x.tif"),
        ("x.TIFF", "x.TIFF"),
        ("a.nii", "a.nii"),
        ("a.nii.gz", "a.nii.gz"),
        ("patient.7.nii.gz", "patient.7.nii.gz"),
        ("left/right/x.jpg", "left/right/x.png"),
    ],
)
def test_result_keeps_folder_stem_and_lossless_format(given: str, wanted: str) -> None:
    assert names((f"in/{given}", given)) == [wanted]


def test_two_inputs_with_one_stem_have_two_results() -> None:
    assert names(("in/a.png", "a.png"), ("in/a.jpg", "a.jpg")) == ["a.png", "a_jpg.png"]
    assert names(("in/a.jpg", "a.jpg"), ("in/a.jpeg", "a.jpeg")) == ["a_jpg.png", "a_jpeg.png"]
    assert names(("in/a.nii", "a.nii"), ("in/a.nii.gz", "a.nii.gz"), ("in/b.png", "b.png")) == [
        "a_nii.nii",
        "a_nii_gz.nii.gz",
        "b.png",
    ]


def test_equal_relative_paths_in_two_folders_add_the_folder_to_the_name() -> None:
    assert names(("left/a.png", "a.png"), ("right/a.png", "a.png")) == [
        "left_a_png.png",
        "right_a_png.png",
    ]
    assert names(("1/x/a.png", "a.png"), ("2/x/a.png", "a.png")) == [
        "x_a_png.png",
        "x_a_png_2.png",
    ]


def test_names_do_not_depend_on_the_order_of_the_inputs() -> None:
    given = [
        (f"{folder}/x/{name}", name)
        for folder in ("1", "2", "3")
        for name in ("a.png", "a.jpg", "A.PNG", "a_png.png", "a_prob.png", "a_prob.jpg", "b.tif")
    ]
    expected = dict(zip(given, names(*given), strict=True))
    order = random.Random(0)
    for _ in range(20):
        order.shuffle(given)
        assert dict(zip(given, names(*given), strict=True)) == expected


def test_different_inputs_share_no_output_file() -> None:
    stems = ("a", "a_prob", "a_overlay", "a_png", "a_png_2", "A", "in_a_png")
    suffixes = (".png", ".jpg", ".bmp", ".nii.gz", ".nii")
    given = [
        (f"{top}/in/{stem}{suffix}", f"{stem}{suffix}")
        for top, stem, suffix in itertools.product("12", stems, suffixes)
    ]
    owned: list[str] = []
    for name in names(*given):
        mask = Path(name)
        owned += [str(mask), str(overlay_path(mask))]
        owned += [str(probability_path(mask, suffix)) for suffix in PROBABILITY_SUFFIXES]
    folded = [name.casefold() for name in owned]
    assert len(set(folded)) == len(folded)


def test_results_in_folders_of_inputs_are_rejected(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.jpg").touch()
    given = [(images / "a.jpg", Path("a.jpg"))]
    for out in (images, tmp_path / "images" / ".." / "images"):
        with pytest.raises(UsageError, match="among the input"):
            plan_output_paths(given, out=out)
    link = tmp_path / "link"
    link.symlink_to(images)
    with pytest.raises(UsageError, match="among the input"):
        plan_output_paths(given, out=link)
    assert plan_output_paths(given, out=images / "results")[0].relative == Path("a.png")


def test_results_next_to_a_link_of_an_input_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.png").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "store" / "1.png")
    given = [(tmp_path / "in" / "a.png", Path("a.png"))]
    for out in ("in", "store"):
        with pytest.raises(UsageError, match="among the input"):
            plan_output_paths(given, out=tmp_path / out)


@pytest.mark.parametrize("relative", ["../a.png", "/tmp/a.png", "x/../../a.png", ""])
def test_path_outside_the_output_folder_is_rejected(relative: str) -> None:
    with pytest.raises(UsageError, match="outside it"):
        plan_output_paths([(Path("in/a.png"), Path(relative))], out=OUT)


def test_double_suffix_is_one_suffix() -> None:
    assert split_suffix("a.b.nii.gz") == ("a.b", ".nii.gz")
    assert split_suffix("a.NII.GZ") == ("a", ".NII.GZ")
    assert split_suffix("a.b.png") == ("a.b", ".png")
    assert split_suffix(".nii.gz") == (".nii", ".gz")
