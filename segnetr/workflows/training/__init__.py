"""`segnetr train`."""
