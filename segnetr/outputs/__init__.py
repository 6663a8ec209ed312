"""Files that are written for users and other programs."""
