"""`segnetr data`."""
