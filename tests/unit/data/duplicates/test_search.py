"""Duplicate images are found, and different images are not reported."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segnetr.data.datasets.synthetic.image import draw_synthetic_image
from segnetr.data.duplicates.alignment import align
from segnetr.data.duplicates.perceptual_hash import (
    ORIENTATIONS,
    find_near,
    hash_spectra,
    transform,
    transform_spectrum,
    turn_image,
)
from segnetr.data.duplicates.search import DuplicatePair, find_duplicates
from segnetr.data.duplicates.thumbnail import SIDE, Thumbnail, make_thumbnail
from segnetr.data.readers.image_file import ImageFile

COUNT = 20
FLIP = Image.Transpose


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(3)
    return [Image.fromarray(draw_synthetic_image(generator, 96, 128)[0]) for _ in range(COUNT)]


def see(pixels: Image.Image, name: str) -> Thumbnail:
    array = np.asarray(pixels)
    image = ImageFile(path=Path(name), array=np.atleast_3d(array), kind="image")
    size, gray = make_thumbnail(image)
    return Thumbnail(sha256=name, size=size, gray=gray)


def compress(pixels: Image.Image, quality: int = 60) -> Image.Image:
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue()))


def cut(pixels: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = pixels.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return pixels.crop(tuple(round(edge) for edge in box))


def pair_up(images, change) -> list[DuplicatePair]:
    originals = [see(pixels, f"o{i}") for i, pixels in enumerate(images)]
    changed = [see(change(pixels), f"c{i}") for i, pixels in enumerate(images)]
    return find_duplicates([*originals, *changed], workers=2)


CHANGES = {
    "recompressed": lambda p: compress(p, 40),
    "resized": lambda p: p.resize((90, 67), Image.Resampling.BICUBIC),
    "mirrored": lambda p: p.transpose(FLIP.FLIP_LEFT_RIGHT),
    "turned": lambda p: p.transpose(FLIP.ROTATE_90),
    "cropped": lambda p: cut(p, 0.05, 0.05, 0.05, 0.05),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_changed_image_is_found_with_its_kind_and_without_false_positives(images, kind):
    pairs = pair_up(images, CHANGES[kind])
    assert [(pair.first, pair.second) for pair in pairs] == [(i, i + COUNT) for i in range(COUNT)]
    assert [pair.kind for pair in pairs] == [kind] * COUNT
    assert all(0.92 <= pair.likeness <= 1 for pair in pairs)


def test_combined_changes_are_found(images):
    def change(pixels: Image.Image) -> Image.Image:
        turned = cut(pixels.transpose(FLIP.TRANSVERSE), 0.05, 0.0, 0.0, 0.04)
        return compress(turned.resize((turned.width * 3 // 4, turned.height * 3 // 4)))

    pairs = pair_up(images, change)
    assert len(pairs) >= 0.95 * COUNT
    assert all(pair.second == pair.first + COUNT for pair in pairs)
    assert {pair.orientation for pair in pairs} == {"mirrored across the diagonal"}


def test_crop_states_the_overlap(images):
    for pair in pair_up(images[:6], lambda p: cut(p, 0.05, 0.05, 0.05, 0.05)):
        assert pair.overlap == pytest.approx(0.81, abs=0.02)


def test_different_images_and_no_images_give_no_pair(images):
    assert find_duplicates([see(pixels, str(i)) for i, pixels in enumerate(images)]) == []
    assert find_duplicates([]) == []


def test_uniform_images_are_duplicates_only_if_their_bytes_are_equal():
    flat = [Image.new("RGB", (60, 60), (shade,) * 3) for shade in (10, 10, 200)]
    thumbnails = [see(pixels, str(i)) for i, pixels in enumerate(flat)]
    assert find_duplicates(thumbnails) == []
    (pair,) = find_duplicates([thumbnails[0], thumbnails[2], thumbnails[0]])
    assert (pair.first, pair.second, pair.kind) == (0, 2, "identical")


def test_spots_on_black_are_duplicates_only_at_the_same_position():
    def spot(row: int, column: int) -> Image.Image:
        rows, columns = np.indices((200, 200))
        inside = np.hypot(rows - row, columns - column) < 4
        return Image.fromarray((inside * 255).astype(np.uint8))

    places = [(60, 70), (66, 75), (55, 64), (64, 61)]
    spots = [see(spot(*place), f"spot {place}") for place in places]
    assert find_duplicates(spots) == []
    mirrored = see(spot(60, 70).transpose(FLIP.FLIP_LEFT_RIGHT), "mirrored")
    (pair,) = find_duplicates([*spots, mirrored])
    assert (pair.first, pair.second, pair.kind) == (0, 4, "mirrored")


def test_order_of_images_only_determines_which_is_first(images):
    thumbnails = [see(pixels, f"o{i}") for i, pixels in enumerate(images[:8])]
    thumbnails += [see(compress(pixels, 50), f"c{i}") for i, pixels in enumerate(images[:8])]
    order = np.random.default_rng(1).permutation(len(thumbnails))
    names = {
        frozenset((thumbnails[pair.first].sha256, thumbnails[pair.second].sha256))
        for pair in find_duplicates(thumbnails)
    }
    shuffled = [thumbnails[row] for row in order]
    again = {
        frozenset((shuffled[pair.first].sha256, shuffled[pair.second].sha256))
        for pair in find_duplicates(shuffled)
    }
    assert names == again == {frozenset((f"o{i}", f"c{i}")) for i in range(8)}


def test_transformed_spectrum_is_that_of_the_transformed_image():
    images = np.random.default_rng(0).random((3, SIDE, SIDE)).astype(np.float32)
    for way in range(len(ORIENTATIONS)):
        turned = transform_spectrum(transform(images), way)
        assert np.allclose(turned, transform(turn_image(images, way)), atol=1e-3)


def test_similar_hashes_are_found_across_blocks():
    generator = np.random.default_rng(5)
    words = generator.integers(0, 2**63, 50, dtype=np.uint64)
    near = words ^ np.uint64(0b111)
    found = set()
    for rows, columns, bits in find_near(words, near, max_bits=3, block=(7, 11)):
        found |= {(int(row), int(column)) for row, column in zip(rows, columns, strict=True)}
        assert (bits <= 3).all()
    assert {(row, row) for row in range(50)} <= found
    spectra = transform(generator.random((4, SIDE, SIDE)).astype(np.float32))
    assert hash_spectra(spectra).shape == (4,)


def test_alignment_finds_the_window_of_a_crop(images):
    whole = see(images[0].resize((512, 512)), "w").gray
    part = see(images[0].resize((512, 512)).crop((20, 0, 500, 512)), "p").gray
    start = np.array([[0.0, 0.0, 1.0, 1.0]])
    fitted = align(whole[None], part[None], start)
    assert fitted.box[0] == pytest.approx([0, 20 / 512, 1, 480 / 512], abs=0.006)
    assert fitted.likeness[0] > 0.95
