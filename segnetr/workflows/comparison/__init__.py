"""`segnetr compare`."""
