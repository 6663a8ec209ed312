"""One function for each command: the only place where all layers meet."""
