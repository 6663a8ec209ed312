"""Slices and intensity statistics of volumes."""
