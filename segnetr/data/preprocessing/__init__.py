"""Intensity normalization and resizing."""
