"""The engine: training, checkpoints, prediction and scoring of any network on any data."""
