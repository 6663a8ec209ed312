"""Fast CPU implementations behind one switch: oneDNN calls and batch-norm folding."""
