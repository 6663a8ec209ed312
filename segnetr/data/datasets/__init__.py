"""Readers of each data set in its original folder layout."""
