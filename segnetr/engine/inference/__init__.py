"""From image files to label maps."""
