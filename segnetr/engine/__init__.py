"""Training, inference, quality estimation and evaluation."""
