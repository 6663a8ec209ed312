"""Test that windows are partitioned, displaced and merged without loss."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from segnetr.models.segnetr.windows import (
    displace_windows,
    merge_displaced,
    merge_windows,
    pad_to_multiple,
    partition_displaced,
    partition_windows,
)

sizes = st.integers(1, 5)
counts = st.integers(1, 6)
quick = settings(max_examples=60, deadline=None)


def numbered(images: int, channels: int, height: int, width: int) -> Tensor:
    total = images * channels * height * width
    return torch.arange(total, dtype=torch.float64).reshape(images, channels, height, width)


def window_numbers(rows: int, columns: int, size: int) -> Tensor:
    """Return a map (1, 1, H, W) with the window number of every pixel."""
    numbers = torch.arange(rows * columns).reshape(1, 1, rows, columns)
    return numbers.repeat_interleave(size, 2).repeat_interleave(size, 3)


@quick
@given(st.integers(1, 3), st.integers(1, 4), counts, counts, sizes)
def test_merging_undoes_partitioning(
    images: int, channels: int, rows: int, columns: int, size: int
) -> None:
    x = numbered(images, channels, rows * size, columns * size)
    windows = partition_windows(x, size)
    assert windows.shape == (images, rows * columns, size * size, channels)
    assert torch.equal(merge_windows(windows, (rows, columns), size), x)


@quick
@given(st.integers(1, 3), st.integers(1, 4), counts, counts, sizes)
def test_global_merging_undoes_global_partitioning(
    images: int, channels: int, rows: int, columns: int, size: int
) -> None:
    x = numbered(images, channels, 2 * rows * size, 2 * columns * size)
    windows = partition_displaced(x, size)
    assert windows.shape == (images, rows * columns, 4 * size * size, channels)
    assert torch.equal(merge_displaced(windows, (rows, columns), size), x)


@quick
@given(counts, counts, sizes)
def test_partitioning_undoes_merging(rows: int, columns: int, size: int) -> None:
    windows = torch.randn(2, rows * columns, size * size, 3)
    assert torch.equal(
        partition_windows(merge_windows(windows, (rows, columns), size), size), windows
    )


@quick
@given(counts, counts, sizes)
def test_window_contains_the_pixels_of_one_square(rows: int, columns: int, size: int) -> None:
    windows = partition_windows(window_numbers(rows, columns, size), size)[0, :, :, 0]
    expected = torch.arange(rows * columns)[:, None].expand(-1, size * size)
    assert torch.equal(windows, expected)


@quick
@given(counts, counts, sizes)
def test_displacing_twice_restores_the_map(rows: int, columns: int, size: int) -> None:
    x = numbered(2, 3, 2 * rows * size, 2 * columns * size)
    moved = displace_windows(x, size)
    assert torch.equal(displace_windows(moved, size), x)
    assert torch.equal(moved.flatten().sort().values, x.flatten())


@quick
@given(counts, counts, sizes)
def test_displacing_moves_complete_windows(rows: int, columns: int, size: int) -> None:
    before = window_numbers(2 * rows, 2 * columns, size)
    after = displace_windows(before, size)
    assert not (before == after).any()
    windows = partition_windows(after, size)[0, :, :, 0]
    assert (windows == windows[:, :1]).all()


def test_fourteen_windows_are_displaced_as_in_the_paper() -> None:
    line = torch.arange(14.0).reshape(1, 1, 1, 14).expand(1, 1, 2, 14)
    order = displace_windows(line, 1)[0, 0, 0].int().tolist()
    assert order == [13, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 0]


@quick
@given(st.integers(1, 7), st.integers(1, 7), sizes)
def test_displaced_double_windows_mix_patches_of_several_double_windows(
    rows: int, columns: int, size: int
) -> None:
    former = window_numbers(rows, columns, 2 * size)
    windows = partition_displaced(former, size)[0, :, :, 0]
    mixed = [len(window.unique()) >= 2 for window in windows]
    # Six windows are three double windows. Fewer can only be swapped.
    assert all(mixed) == (max(rows, columns) >= 3)


def test_two_double_windows_along_an_axis_are_swapped() -> None:
    former = window_numbers(1, 2, 2)
    after = partition_displaced(former, 1)[0, :, :, 0]
    assert after.tolist() == [[1] * 4, [0] * 4]


@quick
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 8))
def test_padding_adds_zeros_to_the_next_multiple(height: int, width: int, size: int) -> None:
    x = torch.ones(1, 2, height, width)
    padded = pad_to_multiple(x, size)
    assert all(
        0 <= after - before < size for before, after in zip(x.shape, padded.shape, strict=True)
    )
    assert padded.shape[2] % size == padded.shape[3] % size == 0
    assert torch.equal(padded[..., :height, :width], x)
    assert padded.sum() == x.sum()


@pytest.mark.parametrize("size", [(5, 4), (4, 5)])
def test_map_that_is_no_multiple_of_the_window_is_rejected(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{size[0]}x{size[1]}"):
        partition_windows(torch.zeros(1, 1, *size), 2)


def test_displacing_an_odd_number_of_windows_is_rejected() -> None:
    with pytest.raises(ValueError, match="6x8"):
        displace_windows(torch.zeros(1, 1, 6, 8), 2)
