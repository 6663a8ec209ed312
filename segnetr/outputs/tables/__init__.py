"""Scores as CSV, JSON and Markdown."""
