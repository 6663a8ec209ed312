"""Image and mask files of every format, read strictly."""
