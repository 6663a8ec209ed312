"""Find duplicate images within and across data sets."""
