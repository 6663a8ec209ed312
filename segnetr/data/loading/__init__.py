"""Samplers and data loaders."""
