"""`segnetr evaluate` and `segnetr report`."""
