"""Workflows of `segnetr models`."""
