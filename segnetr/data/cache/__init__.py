"""Decoded, downsampled copies of images on disk."""
