"""Recipes that are part of the package."""
