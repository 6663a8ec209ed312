"""The training loop, checkpoints and exact resume."""
