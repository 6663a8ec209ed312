"""Workflows of `segnetr data`."""
