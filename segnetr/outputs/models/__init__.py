"""Model folders: weights, metadata and provenance."""
