"""Cells of CSV files are never formulas, and our reader restores them."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segnetr.outputs.tables.csv_file import escape_formula, format_csv, unescape_formula


@pytest.mark.parametrize("cell", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "'=1+1"])
def test_formula_gets_an_apostrophe_in_cells_and_header(cell: str) -> None:
    rows = list(csv.reader(io.StringIO(format_csv([{cell: cell}]), newline="")))
    assert rows == [[f"'{cell}"], [f"'{cell}"]]


@pytest.mark.parametrize("cell", [-1.5, "-1.5", "+3", "-inf", "a=1", "it's", "", None])
def test_numbers_and_plain_text_are_unchanged(cell: object) -> None:
    assert escape_formula(cell) == cell


@given(st.text(alphabet="'=+-@\t\r1a. "))
def test_original_cell_is_restored(cell: str) -> None:
    assert unescape_formula(escape_formula(cell)) == cell
