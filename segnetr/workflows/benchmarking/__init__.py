"""`segnetr benchmark`."""
