"""`segnetr models`."""
