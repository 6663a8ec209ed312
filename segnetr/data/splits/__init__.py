"""Training, validation and test splits, and cross-validation folds."""
