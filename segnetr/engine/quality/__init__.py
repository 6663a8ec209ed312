"""Predicted Dice and out-of-distribution detection."""
