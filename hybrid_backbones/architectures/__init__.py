"""One file per published architecture."""
