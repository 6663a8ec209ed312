"""Compare predicted masks with the ground truth."""
