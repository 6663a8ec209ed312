"""Explanations of classifier predictions."""
