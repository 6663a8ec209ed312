"""`segnetr classify`, and the other commands for classifiers."""
