"""Checks that a data set can be used for training."""
