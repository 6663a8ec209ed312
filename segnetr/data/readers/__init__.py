"""Strict readers for image, mask and volume files."""
