"""The user's own folder, described by a `dataset.yaml` file."""
