"""Classification data sets: images with one label each."""
